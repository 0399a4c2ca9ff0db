//go:build linux

package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// page is a page of the documentation: a sequence of blocks that a reader types
// from top to bottom, in one directory.
//
// An sh block is run and must succeed. A comment in the line before it may say
// otherwise: `<!-- fails -->`, or `<!-- tested by NAME -->` with the test or the
// script that runs it. On a page about several hosts it says where: `<!-- on h1 -->`,
// `<!-- on h1, fails -->`. A text block after it is what it prints, where … stands
// for anything. A yaml block that begins with the comment of a file name is that
// file.
type page struct {
	name   string
	blocks []block
}

type block struct {
	line    int
	heading string // it stands below
	lang    string
	host    string // where it is typed; empty: the page is about one host
	remark  string // of the comment before it
	text    string
	prints  string // the text block after it
}

var (
	fence     = regexp.MustCompile("^```([a-z]*)$")
	remark    = regexp.MustCompile(`^<!-- (?:on (\w+)(?:, )?)?(.*) -->$`)
	testedBy  = regexp.MustCompile(`^tested by (\S+)$`)
	sudo      = regexp.MustCompile(`\bsudo `)
	namedFile = regexp.MustCompile(`^# (\S+\.ya?ml)\n`)
)

// readPage reads a page of the source tree.
func readPage(name string) (page, error) {
	text, err := os.ReadFile(filepath.Join("..", name))
	if err != nil {
		return page{}, err
	}
	p := page{name: name}
	var b *block
	heading, where, note := "", "", ""
	for i, line := range strings.Split(string(text), "\n") {
		m := fence.FindStringSubmatch(line)
		switch {
		case b != nil && m != nil: // its end
			if b.lang == "text" && len(p.blocks) > 0 && b.host == "" && b.remark == "" && p.blocks[len(p.blocks)-1].lang == "sh" && p.blocks[len(p.blocks)-1].prints == "" {
				p.blocks[len(p.blocks)-1].prints = b.text
			} else {
				p.blocks = append(p.blocks, *b)
			}
			b = nil
		case b != nil:
			b.text += line + "\n"
		case m != nil:
			b = &block{line: i + 1, heading: heading, lang: m[1], host: where, remark: note}
		case strings.HasPrefix(line, "#"):
			heading = strings.Trim(line, "# `")
		}
		if r := remark.FindStringSubmatch(line); r != nil {
			where, note = r[1], r[2]
		} else {
			where, note = "", ""
		}
	}
	if b != nil {
		return p, fmt.Errorf("%s:%d: a block has no end", name, b.line)
	}
	return p, nil
}

// workDir is where a reader types.
const workDir = "/root/work"

// follow types what a page says for one host. before holds what happens meanwhile
// where a reader would not type it: a script for the first block below a heading.
func (h *host) follow(name string, before map[string]string) {
	h.t.Helper()
	p, err := readPage(name)
	h.must(err)
	ran := 0
	for _, b := range p.blocks {
		if b.host != "" {
			continue
		}
		if script, ok := before[b.heading]; ok {
			h.sh("cd " + workDir + "\n" + script)
			delete(before, b.heading)
		}
		if m := namedFile.FindStringSubmatch(b.text); m != nil && b.lang == "yaml" {
			h.must(os.WriteFile(h.Path(filepath.Join(workDir, m[1])), []byte(b.text), 0o644))
		}
		if b.lang == "sh" && !testedBy.MatchString(b.remark) {
			h.typeIn(p.name, b)
			ran++
		}
	}
	if ran == 0 {
		h.t.Errorf("%s: no block was run", name)
	}
	for heading := range before {
		h.t.Errorf("%s has no block below %q", name, heading)
	}
}

// followTogether types what a page says for these hosts.
func followTogether(t *testing.T, name string, hosts map[string]*host) {
	t.Helper()
	p, err := readPage(name)
	if err != nil {
		t.Fatal(err)
	}
	typed := map[string]bool{}
	for _, b := range p.blocks {
		h := hosts[b.host]
		switch {
		case b.host == "":
			continue
		case h == nil:
			t.Fatalf("%s:%d: there is no host %s", name, b.line, b.host)
		case b.lang == "sh" && !testedBy.MatchString(b.remark):
			h.typeIn(name, b)
			typed[b.host] = true
		}
	}
	if len(typed) != len(hosts) {
		t.Errorf("%s: of %d hosts only these were typed at: %v", name, len(hosts), typed)
	}
}

// looks matches scripts that only look, and so may be repeated until names that
// Docker's events tell a moment later are there.
var looks = regexp.MustCompile(`^(# .*\n)?((ovs-container-network status|(ovs-vsctl|ovn-[ns]bctl) .*(find|list|show|get|lr-nat-list|lr-route-list)|docker exec) .*\n|(ovs-container-network status|ovs-vsctl show|ovn-[ns]bctl show)\n)+$`)

// typeIn runs one block and compares what it prints.
func (h *host) typeIn(name string, b block) {
	h.t.Helper()
	script := sudo.ReplaceAllString(b.text, "")
	try := func() error {
		out, err := h.Shell(h.ctx(), "cd "+workDir+"\n"+script)
		switch {
		case b.remark == "fails" && err == nil:
			return fmt.Errorf("it succeeds:\n%s", out)
		case b.remark != "fails" && err != nil:
			return err
		}
		return prints(out, b.prints)
	}
	if looks.MatchString(script) {
		h.eventually(fmt.Sprintf("%s:%d does what it says", name, b.line), try)
		return
	}
	if err := try(); err != nil {
		h.t.Fatalf("%s:%d: %v", name, b.line, err)
	}
}

// prints compares output with what a page says: each of its lines is in the
// output, in that order.
func prints(out, want string) error {
	lines := strings.Split(out, "\n")
	for w := range strings.Lines(want) {
		if strings.TrimSpace(w) == "" {
			continue
		}
		pattern := pattern(w)
		found := false
		for i, line := range lines {
			if pattern.MatchString(line) {
				lines, found = lines[i+1:], true
				break
			}
		}
		if !found {
			return fmt.Errorf("it does not print\n%sbut\n%s", w, out)
		}
	}
	return nil
}

// pattern matches a line as a page writes it.
func pattern(line string) *regexp.Regexp {
	var words []string
	for _, word := range strings.Fields(line) {
		words = append(words, strings.ReplaceAll(regexp.QuoteMeta(word), "…", ".*"))
	}
	return regexp.MustCompile(strings.Join(words, `\s+`))
}

// Every block of the documentation is of a kind that is checked: commands are
// run, or by a test that exists, and files and output belong to commands.
func TestPages(t *testing.T) {
	t.Parallel()
	tests := testNames(t)
	ci, err := os.ReadFile("../.ci/run")
	if err != nil {
		t.Fatal(err)
	}
	followed := map[string]bool{"HACKING.md": tests["TestHacking"]}
	together := map[string]bool{}
	for _, w := range walks {
		followed[w.page] = true
	}
	for page, test := range walksTogether {
		together[page] = tests[test]
	}
	for _, name := range pageNames(t) {
		p, err := readPage(name)
		if err != nil {
			t.Error(err)
			continue
		}
		for _, b := range p.blocks {
			where := fmt.Sprintf("%s:%d", name, b.line)
			switch b.lang {
			case "sh":
				m := testedBy.FindStringSubmatch(b.remark)
				switch {
				case m == nil && (b.host == "" && !followed[name] || b.host != "" && !together[name]):
					t.Errorf("%s: no test follows this page", where)
				case m != nil && m[1] == ".ci/run":
					if cmd := strings.TrimSpace(sudo.ReplaceAllString(b.text, "")); !strings.Contains(string(ci), cmd) {
						t.Errorf("%s: .ci/run does not run %s", where, cmd)
					}
				case m != nil && !tests[m[1]]:
					t.Errorf("%s: there is no test %s", where, m[1])
				}
			case "yaml", "ini":
			case "text":
				m := testedBy.FindStringSubmatch(b.remark)
				switch {
				case name != "docs/troubleshooting.md":
					t.Errorf("%s: this output belongs to no command", where)
				case m != nil && !tests[m[1]]:
					t.Errorf("%s: there is no test %s", where, m[1])
				}
			default:
				t.Errorf("%s: a block of kind %q", where, b.lang)
			}
		}
	}
}

// pageNames are all pages of the source tree.
func pageNames(t *testing.T) (names []string) {
	t.Helper()
	for _, glob := range []string{"*.md", "docs/*.md", "docs/*/*.md"} {
		found, err := filepath.Glob(filepath.Join("..", glob))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range found {
			names = append(names, strings.TrimPrefix(f, "../"))
		}
	}
	return names
}

// testNames are the tests of this package.
func testNames(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	files, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?m)^func (Test\w+)\(`).FindAllStringSubmatch(string(text), -1) {
			names[m[1]] = true
		}
	}
	return names
}
