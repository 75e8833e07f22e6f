// Package model simulates a fleet of processes that share one upstream, event by event in virtual time.
//
// It promises three things. The laws it drives are the real ones: a *flowctl.Controller, unchanged and through its public
// methods, one for each pod, and a pool that does exactly what the plans say. Equal scenarios, laws and seeds give equal results.
// And nothing is lost: every dial and every message is delivered, refused, failed or still on its way.
//
// The upstream: a round trip of 20 ms; TLS and AUTH take 80 ms more and hold the slot; a message takes 100 ms (lognormal,
// coefficient of variation .5). A limit counts connections at the server from the arrival of the dial; one too many is refused
// one round trip after it was dialled; a slot is free half a round trip after the client closed. So a connection that
// carries 100 messages keeps a slot 10.1 s for 10 s of work: who closes after so many reaches 99 % at most.
package model

import "time"

// The times of the model. A slot's life without any message is Setup: half a round trip from its arrival at the server to the
// greeting, the log-in, and half a round trip from the close until it is free.
const (
	RTT     = 20 * time.Millisecond
	Login   = 80 * time.Millisecond
	Service = 100 * time.Millisecond // mean time of a message
	Setup   = RTT + Login

	serviceCV      = 0.5              // coefficient of variation of a message's time
	connectTimeout = 10 * time.Second // of a dial that nobody answers
)
