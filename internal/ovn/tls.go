package ovn

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/ovs-container-network/ovs-container-network/internal/ovs"
)

func usesTLS(endpoint string) bool { return strings.HasPrefix(endpoint, "ssl:") }

// endpoints are those of the northbound database, from the daemon's settings, from
// Open vSwitch's, or the socket of this host.
func (f *Fabric) endpoints(c ovs.Chassis) ([]string, error) {
	text := f.cfg.NB
	if text == "" {
		text = c.Settings["ovn-nb"]
	}
	if text == "" {
		text = "unix:" + f.cfg.RunDir + "/ovnnb_db.sock"
	}
	list, err := ParseEndpoints(text)
	for i, e := range list {
		list[i] = f.seenFromHere(e)
	}
	return list, err
}

// ParseEndpoints takes endpoints of a database with commas between.
func ParseEndpoints(text string) ([]string, error) {
	var list []string
	for e := range strings.SplitSeq(text, ",") {
		e = strings.TrimSpace(e)
		scheme, rest, _ := strings.Cut(e, ":")
		switch {
		case scheme == "unix" && strings.HasPrefix(rest, "/"):
		case (scheme == "tcp" || scheme == "ssl") && strings.LastIndex(rest, ":") > 0:
		default:
			return nil, fmt.Errorf("northbound database %q: allowed are unix:/path, tcp:host:port and ssl:host:port", e)
		}
		list = append(list, e)
	}
	return list, nil
}

// loadTLS makes a client's configuration of files. Like Open vSwitch itself it
// checks that the server's certificate is of the CA, not what name is in it:
// ovs-pki(8) makes certificates without the names of hosts.
func loadTLS(files TLS) (*tls.Config, error) {
	if files.Key == "" || files.Certificate == "" || files.CA == "" {
		return nil, errors.New("an ssl: database needs a key, a certificate and a CA: give --tls-key, --tls-cert and --tls-ca, or set them for Open vSwitch (ovs-vsctl set-ssl KEY CERT CA)")
	}
	pair, err := tls.LoadX509KeyPair(files.Certificate, files.Key)
	if err != nil {
		return nil, fmt.Errorf("cannot use key and certificate: %w", err)
	}
	pem, err := os.ReadFile(files.CA)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate", files.CA)
	}
	return &tls.Config{
		Certificates:       []tls.Certificate{pair},
		MinVersion:         tls.VersionTLS12,
		InsecureSkipVerify: true, //nolint:gosec // the chain is verified below
		VerifyConnection: func(s tls.ConnectionState) error {
			between := x509.NewCertPool()
			for _, c := range s.PeerCertificates[1:] {
				between.AddCert(c)
			}
			_, err := s.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between})
			return err
		},
	}, nil
}
