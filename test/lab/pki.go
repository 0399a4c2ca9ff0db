//go:build linux

package lab

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Where InstallPKI puts a host's key, its certificate and the authority's.
const (
	KeyFile  = "/etc/ovn/key.pem"
	CertFile = "/etc/ovn/cert.pem"
	CAFile   = "/etc/ovn/ca.pem"
)

const (
	certLife  = 10 * 365 * 24 * time.Hour
	authority = "the-authority" // no name of a host has a dash in it
)

// PKI is a certificate authority. A nil one means no TLS.
type PKI struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// KeyPair names the files of a certificate, PEM, on the machine.
type KeyPair struct{ Key, Cert, CA string }

// NewPKI makes an authority in that directory of the machine, or returns the one
// that is there.
func NewPKI(dir string) (*PKI, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make certificate authority: %w", err)
	}
	p := &PKI{dir: dir}
	err := p.load()
	if errors.Is(err, os.ErrNotExist) {
		err = p.create()
	}
	if err != nil {
		return nil, fmt.Errorf("certificate authority in %s: %w", dir, err)
	}
	return p, nil
}

func (p *PKI) files(name string) KeyPair {
	return KeyPair{
		Key:  filepath.Join(p.dir, name+"-key.pem"),
		Cert: filepath.Join(p.dir, name+".pem"),
		CA:   filepath.Join(p.dir, authority+".pem"),
	}
}

func (p *PKI) load() error {
	f := p.files(authority)
	der, err := readPEM(f.Cert)
	if err != nil {
		return err
	}
	if p.cert, err = x509.ParseCertificate(der); err != nil {
		return err
	}
	if der, err = readPEM(f.Key); err != nil {
		return err
	}
	p.key, err = x509.ParseECPrivateKey(der)
	return err
}

func (p *PKI) create() error {
	t := template(authority)
	t.IsCA, t.BasicConstraintsValid = true, true
	t.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	key, der, err := sign(t, nil, nil)
	if err != nil {
		return err
	}
	if p.cert, err = x509.ParseCertificate(der); err != nil {
		return err
	}
	p.key = key
	f := p.files(authority)
	if err := writeKey(f.Key, key); err != nil {
		return err
	}
	return writePEM(f.Cert, "CERTIFICATE", der)
}

// Issue makes a certificate for servers and clients alike, with the name and the
// addresses as what it is valid for. An earlier one of the name is replaced.
func (p *PKI) Issue(name string, ips ...string) (KeyPair, error) {
	t := template(name)
	t.DNSNames = []string{name}
	for _, s := range ips {
		ip := net.ParseIP(s)
		if ip == nil {
			return KeyPair{}, fmt.Errorf("certificate of %s: %q is no address", name, s)
		}
		t.IPAddresses = append(t.IPAddresses, ip)
	}
	t.KeyUsage = x509.KeyUsageDigitalSignature
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	key, der, err := sign(t, p.cert, p.key)
	if err != nil {
		return KeyPair{}, fmt.Errorf("certificate of %s: %w", name, err)
	}
	f := p.files(name)
	if err := errors.Join(writeKey(f.Key, key), writePEM(f.Cert, "CERTIFICATE", der)); err != nil {
		return KeyPair{}, fmt.Errorf("certificate of %s: %w", name, err)
	}
	return f, nil
}

// Flags are the options by which every program of Open vSwitch and OVN uses
// what InstallPKI put there; none for a nil PKI.
func (p *PKI) Flags() []string {
	if p == nil {
		return nil
	}
	return []string{"--private-key=" + KeyFile, "--certificate=" + CertFile, "--ca-cert=" + CAFile}
}

// InstallPKI gives the running host a key and a certificate of its name and
// these addresses, on its disk. What is there already stays if it will do.
func (h *Host) InstallPKI(p *PKI, ips ...string) error {
	ips = slices.DeleteFunc(slices.Clone(ips), func(ip string) bool { return ip == "" })
	if h.certified(p, ips) {
		return nil
	}
	pair, err := p.Issue(h.name, ips...)
	if err != nil {
		return err
	}
	for _, f := range [][2]string{{pair.CA, CAFile}, {pair.Key, KeyFile}, {pair.Cert, CertFile}} {
		b, err := os.ReadFile(f[0])
		if err == nil {
			err = os.WriteFile(h.Path(f[1]), b, 0o600)
		}
		if err != nil {
			return fmt.Errorf("host %s: certificate: %w", h.name, err)
		}
	}
	return nil
}

// certified says whether the host's certificate is of this authority and valid
// for all these addresses.
func (h *Host) certified(p *PKI, ips []string) bool {
	ca, err := readPEM(h.Path(CAFile))
	if err != nil || !bytes.Equal(ca, p.cert.Raw) {
		return false
	}
	der, err := readPEM(h.Path(CertFile))
	if err != nil {
		return false
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return false
	}
	for _, ip := range ips {
		if cert.VerifyHostname(ip) != nil {
			return false
		}
	}
	return cert.CheckSignatureFrom(p.cert) == nil
}

func template(name string) *x509.Certificate {
	now := time.Now()
	return &x509.Certificate{
		Subject:   pkix.Name{CommonName: name},
		NotBefore: now.Add(-time.Hour),
		NotAfter:  now.Add(certLife),
	}
}

// sign makes a key and a certificate of it, signed by that of the authority, or
// by itself if that is nil.
func sign(t, ca *x509.Certificate, caKey *ecdsa.PrivateKey) (*ecdsa.PrivateKey, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	if t.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120)); err != nil {
		return nil, nil, err
	}
	if ca == nil {
		ca, caKey = t, key
	}
	der, err := x509.CreateCertificate(rand.Reader, t, ca, &key.PublicKey, caKey)
	return key, der, err
}

func readPEM(file string) ([]byte, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, fmt.Errorf("%s: not PEM", file)
	}
	return block.Bytes, nil
}

func writePEM(file, kind string, der []byte) error {
	return os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}

func writeKey(file string, key *ecdsa.PrivateKey) error {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	return writePEM(file, "EC PRIVATE KEY", der)
}
