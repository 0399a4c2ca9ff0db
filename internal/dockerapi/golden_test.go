package dockerapi

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write what the code does into testdata, to be reviewed")

// names stand for ids in testdata.
var names = map[string]string{"NID": nid, "EID": eid, "BAD": badID, "PANIC": panicID, "GATES": gatesID, "ALONE": alonesID, "SWARM": swarmID}

func expand(s string) string {
	return os.Expand(s, func(name string) string { return names[name] })
}

func shrink(s string) string {
	for name, id := range names {
		s = strings.ReplaceAll(s, id, "${"+name+"}")
	}
	s = anyRequest.ReplaceAllString(s, "(request ID)")
	return library.ReplaceAllString(s, "json: …")
}

var (
	anyRequest = regexp.MustCompile(`\(request [0-9a-f]{8}\)`)
	library    = regexp.MustCompile(`json: cannot [^()]*[^() ]`) // the wording of encoding/json
)

// Every call of every engine is answered as testdata says: a title, the request
// line, the body, what the core is asked, and the answer.
func TestCalls(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	check(t, err)
	if len(files) == 0 {
		t.Fatal("no testdata")
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		check(t, err)
		parts := strings.Split(string(text), "\n== ")
		for i, want := range parts[1:] {
			title, rest, _ := strings.Cut(want, "\n")
			lines := strings.SplitN(rest, "\n", 3)
			method, path, ok := strings.Cut(lines[0], " ")
			if !ok || len(lines) < 2 {
				t.Fatalf("%s: %s: no request", file, title)
			}
			a := newAPI()
			rec := a.ask(method, path, expand(lines[1]))
			got := title + "\n" + lines[0] + "\n" + lines[1] + "\n"
			for _, call := range a.core.take() {
				got += "core: " + shrink(call) + "\n"
			}
			got += fmt.Sprintf("%d %s\n", rec.Code, shrink(rec.Body.String()))
			if ct := rec.Header().Get("Content-Type"); ct != contentType {
				t.Errorf("%s: content type %q", title, ct)
			}
			parts[i+1] = got
			if !strings.HasSuffix(want, "\n") {
				want += "\n"
			}
			if diff := cmp.Diff(want, got); diff != "" && !*update {
				t.Errorf("%s: %s", file, diff)
			}
		}
		if *update {
			check(t, os.WriteFile(file, []byte(strings.Join(parts, "\n== ")), 0o644))
		}
	}
}
