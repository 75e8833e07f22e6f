// Package proxy is mailweir: it accepts mail, keeps it in a journal, and delivers it to one upstream, or several, as fast as each
// can take it. This package ties the parts together; each part is a package below it and knows no other.
//
// # How to read it
//
// proxy.go makes and ends everything. accept.go is the way in: an application's message becomes bytes in the journal, and only
// when they are synced the application hears 250. deliver.go is the way out: one goroutine, the dispatcher, owns the queue and a
// lane for each upstream (lane.go), with its flow controller, and decides what is sent when; router.go says which lane,
// resolve.go where its hosts are; link.go has the goroutines that do it; settle.go takes what came of it: judge.go says what the
// upstream's answer means for each recipient, fuse.go keeps one fault from bouncing a backlog, doubt.go has a refusal wait until
// it can be believed; links.go closes, hold.go holds and resumes, secrets.go looks for the cure; moves.go tells the log,
// remember.go the next start, what was learnt. record.go is what all of them leave in the journal, recorder.go writes it,
// recover.go reads it at the start, and recovered.go and fate.go are how it keeps a million messages meanwhile. morgue.go keeps
// the dead; status.go and pulse.go say how things are, and restart.go that the configuration has changed.
//
//	application ─► smtpd ─► accept ─► journal (write, sync) ─► 250
//	                           │
//	                           ▼
//	             intake ─► dispatcher (queue, flowctl) ─► load, sign ─► connection ─► upstream
//	                           ▲                                           │
//	                           └─────────── result ◄── journal ◄───────────┘
//
// # Who owns which goroutine
//
// Run starts and joins: one a listener and one a client (smtpd), the dispatcher, the loaders and one a connection (pool, one a
// lane), one that asks for names and one that looks at files while a login is held (pool too), one that looks at files that only a
// start reads (restart), one a signature that a loader makes (dkim), the recorder, the journal's writer, syncer and keeper, and the
// two HTTP servers (admin). Nothing else starts one. The dispatcher never waits for the network, and for the disk only when
// maxUnwritten decisions do; everybody else reaches it by post.
//
// # States of a message, and what a crash leaves
//
//	S1 receiving   nothing that counts: the application had no 250 and tries again
//	S2 written     the record is written and not synced, or synced and the 250 was not heard: gone, or whole and
//	               delivered although the application may repeat it (duplicate window 1)
//	S3 accepted    record synced, 250 sent: it will be delivered or kept as dead
//	S4 in flight   a Started record is written: sent again if the upstream took it and we had not heard
//	               so (duplicate window 2)
//	S5 deferred    an Attempt record says when it is due
//	S6 ended       the Verdict is written, not synced: kill -9 leaves it ended; after a power cut up to 50 ms of
//	               verdicts are S4 again (duplicate window 3)
//	S7 settled     synced: never sent again
//	SD dead        a recipient was refused for good or expired: kept with its body, bounded by age and bytes
//
// A recipient ends as delivered or dead. Bounces do not exist yet: a dead message is an error in the log, a metric, and a row of
// "mailweir queue dead".
//
// # Keys of the log
//
//	id          queue ID                          reply       the upstream's words
//	from        sender, hashed unless asked for   reason      why something moved
//	recipients  how many                          outcome     delivered, dead
//	size        octets                            attempts    failures on the recipient's account
//	client      the application's address         due         when it is tried again
//	took, age   durations                         class       what a reply means (flowctl.Class)
//	stage       where in a session                pending     messages not ended
//	uncertain   it may have been delivered        left        messages that wait for the next start
//	repeats     changes not told since            probe       between two tries of what is held
//	key         where DNS has a signing key       upstream    its name, where there are several
//	address     one of an upstream's             addresses   all of them
//	files       that only a start reads
package proxy
