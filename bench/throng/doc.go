// Package throng measures the flow control with real processes: many of them beside one relay that has places for few.
//
// What the simulation promises about a law must hold for processes that run late, for a network that reorders, and for clocks that
// differ. So each test starts the real binary, once or dozens of times, before the scripted relay with a limit that real relays have,
// gives it a standing backlog over SMTP, and judges by what the relay saw: who got how much, how much of its capacity was used, how
// often it had to refuse, and that nothing was lost or came twice.
//
// Everything here is a test behind the build tag throng and needs Linux; the comparison with Postfix needs the tag postfix too, root,
// and Postfix. What takes minutes in service takes seconds: the processes run with MAILWEIR_TIME_SCALE, and the bars that are times
// scale with it. What the flags are by default is for every commit, in less than five minutes: few processes, and a scale at which
// they have dozens of turns in a minute. A release is measured with "make throng", and with "make throng-unscaled", which takes hours
// and is what an operator would see.
//
//	go test -tags=throng -count=1 -v ./bench/throng
//	go test -tags=throng,postfix -count=1 -v -run Postfix ./bench/throng
package throng
