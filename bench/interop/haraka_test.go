//go:build postfix

package interop

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/mailweir/mailweir/bench/rig"
)

// Haraka writes what it takes with a plugin of ours. Its limits of lines and header fields are settings; nothing else is changed. It wants a newer
// Node than Debian 12 has, so npm fetches one with it.
func startHaraka(t *testing.T) (string, func(t *testing.T) []arrival) {
	pkg := filepath.Join(scratch(t), "pkg") // what npm fetched is below a home directory
	if err := os.CopyFS(pkg, os.DirFS(fromNpm(t, "haraka", "write.js"))); err != nil {
		t.Fatal(err)
	}
	dir, address := scratch(t), rig.FreeAddress(t)
	mail, conf := filepath.Join(dir, "mail"), filepath.Join(dir, "config")
	own(t, nobody, dir, mail, conf, filepath.Join(dir, "plugins"))
	script, err := os.ReadFile("testdata/haraka/write.js")
	if err != nil {
		t.Fatal(err)
	}
	write(t, 0o644, filepath.Join(dir, "plugins/write.js"), "%s", script)
	for name, text := range map[string]string{
		"me":             "haraka.example\n",
		"plugins":        "write\n",
		"smtp.ini":       "listen=" + address + "\nnodes=0\n",
		"connection.ini": harakaConnection,
	} {
		write(t, 0o644, filepath.Join(conf, name), "%s", text)
	}
	node, err := filepath.Glob(filepath.Join(pkg, "node_modules/node-linux-*/bin/node"))
	if err != nil || len(node) != 1 {
		t.Fatalf("npm has no Node for this machine: %v, %v", node, err)
	}
	serve(t, nobody, []string{"MAIL_DIR=" + mail}, node[0], filepath.Join(pkg, "node_modules/haraka/bin/haraka"), "-c", dir)
	return address, inDirectory(mail)
}

const harakaConnection = `[main]
[haproxy]
hosts[] =
[headers]
max_lines=1000
max_received=100
[max]
bytes=52428800
mime_parts=1000
line_length=512
data_line_length=1000000
[message]
helo=hello
close=bye
[uuid]
banner_chars=6
deny_chars=0
`
