//go:build postfix

package interop

import (
	"path/filepath"
	"testing"

	"github.com/mailweir/mailweir/bench/rig"
)

// OpenSMTPD runs as root, since it parts itself into processes of three users, and sends on to a sink. The directories that it has compiled in
// are, for it alone, ones that are forgotten with it.
func startOpenSMTPD(t *testing.T) (string, func(t *testing.T) []arrival) {
	pkg := unpacked(t, "opensmtpd")
	sink, sinkAddress := newSink(t)
	dir, address := scratch(t), rig.FreeAddress(t)
	write(t, 0o644, filepath.Join(dir, "conf"), opensmtpdConf, port(t, address), port(t, sinkAddress))
	users(t, dir,
		"opensmtpd:x:8:8::/var/lib/opensmtpd/empty:/usr/sbin/nologin\n"+
			"opensmtpq:x:65534:65534::/nonexistent:/usr/sbin/nologin\n", "opensmtpd:x:8:\nopensmtpq:x:65534:\n")
	serve(t, 0, nil, "sh", "-c", asUsers+`for d in /run /var/lib /var/spool; do mount -t tmpfs -o mode=755 none $d; done
		mkdir -p -m 755 /var/lib/opensmtpd/empty
		exec "$2" -d -f "$1/conf"`, "sh", dir, filepath.Join(pkg, "usr/sbin/smtpd"))
	return address, inSink(sink)
}

const opensmtpdConf = `
smtp max-message-size "50M"
listen on 127.0.0.1 port %s hostname opensmtpd.example
action out relay host smtp://127.0.0.1:%s
match from any for any action out
`
