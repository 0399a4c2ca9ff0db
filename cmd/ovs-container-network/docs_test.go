package main

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/ovs-container-network/ovs-container-network/internal/network"
)

// root is the source tree.
const root = "../.."

// document reads a file of the source tree.
func document(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// documents are all pages, by their name in the source tree.
func documents(t *testing.T) map[string]string {
	t.Helper()
	pages := map[string]string{}
	for _, glob := range []string{"*.md", "docs/*.md", "docs/*/*.md"} {
		found, err := filepath.Glob(filepath.Join(root, glob))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range found {
			name := strings.TrimPrefix(f, root+"/")
			pages[name] = document(t, name)
		}
	}
	if len(pages) < 8 {
		t.Fatalf("only %d pages were found", len(pages))
	}
	return pages
}

// section is the part of a page below a heading of the second level.
func section(t *testing.T, page, heading string) string {
	t.Helper()
	_, after, ok := strings.Cut(page, "\n## "+heading+"\n")
	if !ok {
		t.Fatalf("no section %q", heading)
	}
	text, _, _ := strings.Cut(after, "\n## ")
	return text
}

// firsts are the sorted first submatches of a pattern.
func firsts(pattern, text string) (list []string) {
	for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
		list = append(list, m[1])
	}
	slices.Sort(list)
	return slices.Compact(list)
}

func expectEqual(t *testing.T, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: the page has %v, the code has %v", what, got, want)
	}
}

// docs/options.md describes every option there is, in the table and below a
// heading, and none that there is not.
func TestOptionsAreDocumented(t *testing.T) {
	page := document(t, "docs/options.md")
	for _, s := range []struct {
		section string
		options []string
	}{
		{"Network options", network.NetworkOptions()},
		{"Attachment options", network.AttachmentOptions()},
	} {
		text := section(t, page, s.section)
		expectEqual(t, s.section+", headings", firsts("(?m)^### `([\\w.]+)`", text), s.options)
		expectEqual(t, s.section+", table", firsts("(?m)^\\| \\[`([\\w.]+)`\\]", text), s.options)
	}
}

// docs/install.md describes every flag of serve with its variable and default,
// what the plugin can be set, and nothing else.
func TestSettingsAreDocumented(t *testing.T) {
	rows := map[string][]string{} // by variable
	for row := range strings.Lines(section(t, document(t, "docs/install.md"), "Settings")) {
		cells := strings.Split(strings.TrimSpace(row), "|")
		if len(cells) == 7 && strings.Contains(cells[1], "`--") {
			for i := range cells {
				cells[i] = strings.Trim(cells[i], " `")
			}
			rows[cells[2]] = cells
		}
	}
	var flags []string
	all := newServe().Flags()
	for _, name := range firsts(`(?m)^ +--([a-z-]+)`, all.FlagUsages()) {
		f := all.Lookup(name)
		variable := strings.Join(firsts(`\((OCN_\w+)\)`, f.Usage), "")
		flags = append(flags, variable)
		row := rows[variable]
		if row == nil {
			t.Errorf("no row of --%s, %s", f.Name, variable)
			continue
		}
		if row[1] != "--"+f.Name {
			t.Errorf("%s is --%s, the page says %s", variable, f.Name, row[1])
		}
		want := f.DefValue
		if f.Name == "socket" {
			want = "/run/docker/plugins/ovs-container-network.sock"
			if !strings.Contains(f.Usage, want) {
				t.Errorf("--socket is in place of something else than %s: %s", want, f.Usage)
			}
		}
		if row[3] != want {
			t.Errorf("--%s has the default %s, the page says %s", f.Name, want, row[3])
		}
	}
	slices.Sort(flags)
	expectEqual(t, "variables", slices.Sorted(maps.Keys(rows)), flags)

	var manifest struct{ Env []struct{ Name string } }
	if err := json.Unmarshal([]byte(document(t, "plugin/config.json")), &manifest); err != nil {
		t.Fatal(err)
	}
	var settable, marked []string
	for _, e := range manifest.Env {
		settable = append(settable, e.Name)
	}
	for variable, row := range rows {
		if row[5] == "settable" {
			marked = append(marked, variable)
		}
	}
	slices.Sort(settable)
	slices.Sort(marked)
	expectEqual(t, "settable", marked, settable)
}

// Every OCN_ variable, subcommand and make target that a page names exists.
func TestNamesInPagesExist(t *testing.T) {
	code := document(t, "Makefile")
	for _, glob := range []string{"cmd/*/*.go", "test/*/*.go", "scripts/*.sh", "integration/*.go"} {
		files, err := filepath.Glob(filepath.Join(root, glob))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if filepath.Base(f) != "docs_test.go" {
				code += document(t, strings.TrimPrefix(f, root+"/"))
			}
		}
	}
	targets := firsts(`(?m)^([a-z][a-z-]*):`, document(t, "Makefile"))
	var commands []string
	for _, c := range newRoot().Commands() {
		commands = append(commands, c.Name())
	}
	for name, page := range documents(t) {
		for _, variable := range firsts(`\b(OCN_\w+)`, page) {
			if !regexp.MustCompile(`\b` + variable + `\b`).MatchString(code) {
				t.Errorf("%s: nothing reads %s", name, variable)
			}
		}
		for _, target := range firsts("(?m)(?:^|`|sudo |&& )make ([a-z][a-z-]*)", page) {
			if !slices.Contains(targets, target) {
				t.Errorf("%s: the Makefile has no target %s", name, target)
			}
		}
		for _, command := range firsts("(?m)(?:^|`|sudo |/)ovs-container-network ([a-z]+)\\b", page) {
			if !slices.Contains(commands, command) {
				t.Errorf("%s: there is no command %s", name, command)
			}
		}
	}
}

var (
	mdLink  = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ (.*)$`)
)

// anchors are the names by which the headings of a page are linked.
func anchors(page string) (list []string) {
	for _, m := range heading.FindAllStringSubmatch(page, -1) {
		slug := regexp.MustCompile(`[^\p{L}\p{N}_ -]`).ReplaceAllString(strings.ToLower(m[1]), "")
		list = append(list, strings.ReplaceAll(slug, " ", "-"))
	}
	return list
}

// Every relative link leads to a file of the source tree, and to a heading in it
// where it names one.
func TestLinks(t *testing.T) {
	pages := documents(t)
	for name, page := range pages {
		for _, m := range mdLink.FindAllStringSubmatch(page, -1) {
			link := m[1]
			if strings.Contains(link, "://") {
				continue
			}
			file, anchor, _ := strings.Cut(link, "#")
			to := name
			if file != "" {
				to = filepath.Join(filepath.Dir(name), file)
			}
			if _, err := os.Stat(filepath.Join(root, to)); err != nil {
				t.Errorf("%s: the link %s leads nowhere", name, link)
				continue
			}
			if anchor != "" && !slices.Contains(anchors(pages[to]), anchor) {
				t.Errorf("%s: %s has no heading %s", name, to, anchor)
			}
		}
	}
}

// Each decision is in the list of decisions.
func TestDecisionsAreListed(t *testing.T) {
	list := document(t, "docs/adr/README.md")
	for name := range documents(t) {
		if base := filepath.Base(name); filepath.Dir(name) == "docs/adr" && base != "README.md" && !strings.Contains(list, "("+base+")") {
			t.Errorf("docs/adr/README.md does not list %s", base)
		}
	}
}

// The picture is well-formed.
func TestPicture(t *testing.T) {
	d := xml.NewDecoder(strings.NewReader(document(t, "docs/picture.svg")))
	for {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

// docs/doctor.md has the checks with what they ask and need, and the kinds of
// what gc removes.
func TestChecksAreDocumented(t *testing.T) {
	page := document(t, "docs/doctor.md")
	var rows, want []string
	for _, m := range regexp.MustCompile("(?m)^\\| `(\\w+)` \\| ([^|]*\\?) \\| ([^|]*)\\|").FindAllStringSubmatch(section(t, page, "doctor"), -1) {
		rows = append(rows, m[1]+": "+m[2]+" "+strings.Trim(m[3], "` "))
	}
	for _, c := range (&doctor{}).checks(nil) {
		want = append(want, c.Name+": "+c.Asks+" "+strings.Join(c.Needs, ", "))
	}
	expectEqual(t, "checks", rows, want)
	expectEqual(t, "kinds", firsts("`([\\w ]+)`", strings.Join(firsts("(?m)^\\| (`[^|]*) \\|", section(t, page, "gc")), " ")),
		[]string{"address", "bridge", "chain", "chassis", "claim", "link", "logical mirror", "logical port", "mirror", "network", "pool", "port", "record"})
}
