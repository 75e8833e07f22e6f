// Package interop runs the real binary between real clients and a real Postfix, and our client against servers that other people wrote.
//
// It promises that what the other packages prove against a relay of our own also holds against one that other people
// wrote: every message that was acknowledged arrives unaltered, exactly once but for the windows that are counted, whatever is
// killed, stopped, refused or full meanwhile.
//
// Everything here is a test behind the build tag postfix. It needs Linux, root (Postfix insists on it, and one test mounts
// a small file system), and from Debian: postfix, swaks, curl, python3, nodejs, npm, python3-dkim, python3-nacl and
// opendkim-tools. It uses an instance of Postfix with its own directories and a port on loopback; one that is installed stays as it is.
// Exim, OpenSMTPD, sendmail, chasquid and aiosmtpd are fetched from Debian and unpacked, since its mail servers exclude each other; openssl and the libraries that
// .ci/run installs for them must be there. OpenSMTPD has its directories and users compiled in: it gets them in a mount namespace of its own.
// npm fetches Haraka, and a Node for it, since Debian 12's is too old.
//
//	go test -tags=postfix -count=1 -v ./bench/interop/
package interop
