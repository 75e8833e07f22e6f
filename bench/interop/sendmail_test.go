//go:build postfix

package interop

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/mailweir/mailweir/bench/rig"
)

// sendmail begins as root, to be alone with a hosts file in which this machine has a domain (it waits for one before it reads its
// configuration) and with a queue in memory; it goes on as nobody, and sends on to a sink.
func startSendmail(t *testing.T) (string, func(t *testing.T) []arrival) {
	pkg := unpacked(t, "sendmail-bin")
	sink, sinkAddress := newSink(t)
	dir, address := scratch(t), rig.FreeAddress(t)
	own(t, nobody, filepath.Join(dir, "queue"))
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	write(t, 0o644, filepath.Join(dir, "hosts"), "127.0.0.1 localhost\n127.0.0.1 sendmail.example %s\n", host)
	write(t, 0o644, filepath.Join(dir, "switch"), "hosts files\n")
	write(t, 0o644, filepath.Join(dir, "conf"), sendmailConf, dir, port(t, address), port(t, sinkAddress))
	serve(t, 0, nil, "sh", "-c", `set -e
		mount --bind "$1/hosts" /etc/hosts
		mount -t tmpfs -o uid=65534,gid=65534,mode=700 none "$1/queue"
		exec "$2" -C"$1/conf" -bD -q1s`, "sh", dir, filepath.Join(pkg, "usr/libexec/sendmail/sendmail"))
	return address, inSink(sink)
}

// The mailer's flags: several recipients at a time, dots stuffed, octets of 8 bits as they are.
const sendmailConf = `V10/Berkeley
Djsendmail.example
DnMAILER-DAEMON
O ServiceSwitchFile=%[1]s/switch
O DaemonPortOptions=Addr=127.0.0.1,Port=%[2]s
O QueueDirectory=%[1]s/queue
O PidFile=%[1]s/queue/pid
O RunAsUser=nobody
O DefaultUser=65534:65534
O EightBitMode=pass8
O OperatorChars=.:%%@!^/[]+
O UnixFromLine=From $g $d
O SmtpGreetingMessage=$j
O QueueLA=1000
O RefuseLA=1000
O Timeout.ident=0
HReceived: by $j id $i; $b
Mlocal,	P=/bin/false, F=lsDFM, A=false
Mprog,	P=/bin/false, F=lsDFM, A=false
Mout,	P=[IPC], F=mDFMuXa8, L=0, E=\r\n, A=TCP [127.0.0.1] %[3]s
S3
R$* < $* > $*	$@ $2
S0
R$+	$#out $@ [127.0.0.1] $: $1
`
