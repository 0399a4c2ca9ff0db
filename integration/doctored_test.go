//go:build linux

package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/ovs-container-network/ovs-container-network/internal/control"
)

// doctorReport is what `doctor -o json` prints.
type doctorReport struct {
	Healthy  bool            `json:"healthy"`
	Findings []doctorFinding `json:"findings"`
	Fleet    *control.Fleet  `json:"fleet"`
}

type doctorFinding struct {
	Check    string   `json:"check"`
	Subject  string   `json:"subject"`
	Severity string   `json:"severity"` // fault, advice
	Cause    string   `json:"cause"`
	Evidence []string `json:"evidence"`
	Mend     []string `json:"mend"`
}

func (f doctorFinding) String() string {
	return fmt.Sprintf("%s of %s: %s: %s [%s] mend: %s", f.Severity, f.Check, f.Subject, f.Cause,
		strings.Join(f.Evidence, "; "), strings.Join(f.Mend, "; "))
}

// doctor runs doctor. That it finds something is no error.
func (h *host) doctor() (report doctorReport, err error) {
	out, err := h.Command(h.ctx(), "timeout", "60", buildDir+"/ovs-container-network", "doctor", "-o", "json").Output()
	var exit *exec.ExitError
	if err != nil && !(errors.As(err, &exit) && exit.ExitCode() == 1) {
		return report, fmt.Errorf("doctor: %w", err)
	}
	if jerr := json.Unmarshal(out, &report); jerr != nil {
		return report, fmt.Errorf("doctor prints %q: %w", out, errors.Join(jerr, err))
	}
	if report.Healthy != (err == nil) {
		return report, fmt.Errorf("doctor says healthy=%t and ends with %v", report.Healthy, err)
	}
	return report, nil
}

// diagnoses waits until doctor names a fault in all these words.
func (h *host) diagnoses(words ...string) {
	h.t.Helper()
	h.within(10*time.Second, fmt.Sprintf("doctor finds a fault and says %q", words), func() error {
		report, err := h.doctor()
		if err != nil {
			return err
		}
		for _, f := range report.Findings {
			if f.Severity == "fault" && hasAll(f.String(), words) {
				return nil
			}
		}
		return fmt.Errorf("it finds %v", report.Findings)
	})
}

func hasAll(text string, words []string) bool {
	for _, w := range words {
		if !strings.Contains(strings.ToLower(text), strings.ToLower(w)) {
			return false
		}
	}
	return true
}

// healthy waits until doctor finds no fault. The daemons of OVN wait ever longer
// between their attempts to reach a database that was away.
func (h *host) healthy() {
	h.t.Helper()
	h.within(time.Minute, "doctor finds no fault", func() error {
		report, err := h.doctor()
		if err == nil && !report.Healthy {
			err = fmt.Errorf("it finds %v", report.Findings)
		}
		return err
	})
}
