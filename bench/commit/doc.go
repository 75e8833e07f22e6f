// Package commit measures what it costs that 250 means synced.
//
// It drives the real front door, listener, journal and log included, with 1, 10, 100 and 500 senders, and reports how many
// messages a second it takes, how many syncs a message costs, and how long a sender waits from the end of its content to its 250.
// Beside it stand, measured in the same run on the same disk: the same front door over a journal that does not sync, what the disk
// can sync by itself, and, with the build tag postfix and as root, a Postfix that defers everything.
//
// Only the way in is measured: the relay cannot be reached.
//
// The senders are one thread of another process, that waits in epoll and sends bytes made beforehand: a core that they
// use is one that the front door cannot. How much that is stands in the table too.
//
//	go test -v -run TestTable ./bench/commit -table
//
// Without -table only what must hold on any machine is asserted, as ratios of what was measured side by side.
package commit
