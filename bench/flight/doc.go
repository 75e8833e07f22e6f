// Package flight measures how many messages a connection carries over a distance: to a real Postfix and a real Exim through a forwarder
// that delays, on each level of pipelining, and to the scripted relay with few places, beside a Postfix that was tuned for it.
//
// Everything here is a test behind the build tag flight and needs Linux, root and Postfix, and for Exim the path of its binary. What is
// asserted are ratios within one run.
//
//	go test -tags=flight -count=1 -v ./bench/flight -exim /usr/sbin/exim4
package flight
