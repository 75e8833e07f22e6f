// Package crash pulls the plug on the real binary, on real file systems, and counts the mail afterwards.
//
// It promises that a run which passes has lost nothing: every message that was answered 250 before the kill, the power
// cut, the full disk or the failed sync arrives at the relay unaltered once mailweir runs again, and what arrives twice is
// no more than was under way at that moment. The oracle is a book kept outside of the process: what the source
// was told, and what the relay took.
//
// What it cannot show: a disk that confirms a flush and keeps the bytes in a cache, or that tears a sector. The tests of the journal
// play that in memory.
//
// Everything here is a test behind the build tag crash. It needs Linux and root, since it mounts small file systems and
// shuts them down, and from Debian: postfix, e2fsprogs and strace. Mounts are made in a name space of their own, so
// they are gone with the last process of the run, however that ends.
//
//	make crash-ci
//	make crash
package crash
