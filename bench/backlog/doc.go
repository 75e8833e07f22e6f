// Package backlog measures what a pile of pending messages costs: memory, the time of a start, and whether the application
// notices it.
//
// It promises that the bounds on memory hold, and that mail is accepted as fast with a backlog as without one: both are asserted, the
// second as a ratio within one run on one disk. Times are printed and not judged, since they are the machine's.
//
// The relay is down all the while: nothing listens where the real binary, as a process of its own, looks for it. Everything here is a
// test behind the build tag backlog, and needs Linux for /proc. Of each thousand messages the journal takes 2.5 MB of disk below
// TMPDIR, which is given back at the end.
//
//	go test -tags=backlog -count=1 -v ./bench/backlog -messages 1000000
package backlog
