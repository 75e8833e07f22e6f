//go:build postfix

package interop

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mailweir/mailweir/bench/rig"
)

// OpenSMTPD runs as root, since it parts itself into processes of three users. The directories that it has compiled in are, for it alone,
// ones that are forgotten with it. It delivers to a command: when it sends on, its content and its dot wait for each other's
// acknowledgement, 40 ms a message.
func startOpenSMTPD(t *testing.T) (string, func(t *testing.T) []arrival) {
	pkg := unpacked(t, "opensmtpd")
	dir, address := scratch(t), rig.FreeAddress(t)
	mail := filepath.Join(dir, "mail")
	own(t, mailUser, mail)
	write(t, 0o644, filepath.Join(dir, "conf"), opensmtpdConf, port(t, address), dir)
	write(t, 0o755, filepath.Join(dir, "deliver"), deliverSh, mail)
	var recipients strings.Builder // those that are one and the same to it get one copy
	for i := range recipientsMost {
		fmt.Fprintf(&recipients, "u%d:x:8:8::/:/bin/sh\n", i)
	}
	users(t, dir, recipients.String()+
		"opensmtpd:x:8:8::/var/lib/opensmtpd/empty:/usr/sbin/nologin\n"+
		"opensmtpq:x:65534:65534::/nonexistent:/usr/sbin/nologin\n", "opensmtpd:x:8:\nopensmtpq:x:65534:\n")
	serve(t, 0, nil, "sh", "-c", asUsers+`for d in /run /var/lib /var/spool; do mount -t tmpfs -o mode=755 none $d; done
		mkdir -p -m 755 /var/lib/opensmtpd/empty
		mount --bind "$2/usr/libexec" /usr/libexec
		exec "$2/usr/sbin/smtpd" -d -f "$1/conf"`, "sh", dir, pkg)
	return address, inDirectory(mail)
}

const opensmtpdConf = `
smtp max-message-size "50M"
listen on 127.0.0.1 port %s hostname opensmtpd.example
action out mda "%s/deliver %%{rcpt}"
match from any for any action out
`
