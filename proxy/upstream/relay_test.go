package upstream

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mailweir/mailweir/bench/memconn"
	"github.com/mailweir/mailweir/flowctl"
	"github.com/mailweir/mailweir/proxy/message"
)

// act is what the relay does in place of its ordinary answer.
type act struct {
	reply string // sent first; lines end in "\n" here
	later string // sent a second after it, or wait
	wait  time.Duration
	then  string // "": go on; close, reset, stall (reads on), freeze (does not), trickle
	take  int    // 1: the command is taken whatever the reply, -1: it is not; 0: by the first digit of the reply
	drip  bool   // an octet of the reply a second
}

// relay is a server that keeps the rules, but where its script says otherwise.
type relay struct {
	greeting string
	offers   []string       // EHLO keywords
	script   map[string]act // by verb and how often it was seen on this connection: "MAIL 2"; the dot is "DOT", the first octets of content "BODY"
	forgets  bool           // what it had read behind the content
	oneWay   time.Duration
	words    map[string]string // what it says in place of its ordinary positive answers, by verb; <> stands for the last recipient
	ponders  time.Duration     // over each content, before it answers
	unasked  string            // before the answer to which command it says something of its own
	tls      *tls.Config       // for STARTTLS, or from the start
	implicit bool
	user     string
	secret   string

	mu       sync.Mutex
	accepted []accepted // what it has taken responsibility for, its reply heard or not
	lines    []string   // commands of all connections
	logins   int        // that succeeded
	dials    int
	wg       sync.WaitGroup
}

type accepted struct {
	from string
	to   []string
	body string
}

var (
	pipelining = []string{"PIPELINING", "SIZE 1000000", "8BITMIME"}
	chunking   = append(pipelining[:3:3], "CHUNKING")
)

// stand puts a client's ladder on a rung, where it stays but for faults.
func stand(cl *Client, level Level, window int) {
	cl.ladder.at, cl.ladder.told, cl.ladder.until = rung{level, window}, true, time.Now().Add(1000*time.Hour)
	cl.ladder.widest = max(cl.ladder.widest, window)
}

// client returns a client whose connections the relay serves.
func (r *relay) client(t *testing.T, cfg Config) *Client {
	t.Helper()
	if cfg.URL == "" {
		cfg.URL = "smtp://relay.example"
	}
	cfg.Dial = func(context.Context, string, string) (net.Conn, error) {
		ours, theirs := memconn.PipeLatency(r.oneWay)
		r.mu.Lock()
		r.dials++
		r.mu.Unlock()
		r.wg.Go(func() { r.serve(theirs) })
		return ours, nil
	}
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// connect returns a ready connection.
func (r *relay) connect(t *testing.T, cl *Client) *Conn {
	t.Helper()
	c, out := cl.Connect(t.Context(), "")
	if c == nil {
		t.Fatalf("connect: %+v", out)
	}
	return c
}

// session is one connection of the relay.
type session struct {
	*relay
	conn  net.Conn
	br    *bufio.Reader
	seen  map[string]int
	from  string
	mail  bool
	rcpts []string
}

func (r *relay) serve(conn net.Conn) {
	defer conn.Close()
	if r.implicit {
		conn = tls.Server(conn, r.tls)
	}
	s := &session{relay: r, conn: conn, br: bufio.NewReader(conn), seen: map[string]int{}}
	greeting := r.greeting
	if greeting == "" {
		greeting = "220 relay.example ESMTP"
	}
	if s.do("GREETING", greeting) {
		for s.command() {
		}
	}
}

// do answers, or does what the script says. False ends the session.
func (s *session) do(verb, reply string) bool {
	if w := s.words[verb]; w != "" && reply[0] == '2' {
		reply = strings.Replace(w, "<>", strings.Join(s.rcpts[max(0, len(s.rcpts)-1):], ""), 1)
	}
	if verb == "DOT" {
		<-time.After(s.ponders)
	}
	s.seen[verb]++
	nth := fmt.Sprintf("%s %d", verb, s.seen[verb])
	a, ok := s.script[nth]
	if !ok {
		a.reply = reply
	}
	if nth == s.unasked {
		a.reply = "250 hello\n" + a.reply
	}
	return s.act(a)
}

func (s *session) act(a act) bool {
	if a.drip {
		for _, b := range []byte(strings.ReplaceAll(a.reply, "\n", "\r\n") + "\r\n") {
			<-time.After(time.Second)
			if _, err := s.conn.Write([]byte{b}); err != nil {
				return false
			}
		}
		return s.act(act{then: a.then})
	}
	if a.reply != "" {
		if _, err := io.WriteString(s.conn, strings.ReplaceAll(a.reply, "\n", "\r\n")+"\r\n"); err != nil {
			return false
		}
	}
	if a.later != "" {
		if a.wait == 0 {
			a.wait = time.Second
		}
		<-time.After(a.wait)
		return s.act(act{reply: a.later, then: a.then})
	}
	switch a.then {
	case "stall":
		io.Copy(io.Discard, s.br)
		return false
	case "freeze":
		<-time.After(time.Hour)
		return false
	case "trickle":
		for buf := make([]byte, 16<<10); ; <-time.After(time.Minute) {
			if _, err := s.br.Read(buf); err != nil {
				return false
			}
		}
	case "reset":
		s.conn.(*memconn.Conn).CloseWithReset()
		return false
	}
	return a.then == ""
}

func (s *session) command() bool {
	line, err := s.br.ReadString('\n')
	if err != nil {
		return false
	}
	line = strings.TrimRight(line, "\r\n")
	s.mu.Lock()
	s.lines = append(s.lines, line)
	s.mu.Unlock()
	verb, arg, _ := strings.Cut(line, " ")
	switch verb {
	case "EHLO":
		lines := append([]string{"relay.example"}, s.offers...)
		for i, l := range lines {
			lines[i] = "250-" + l
		}
		lines[len(lines)-1] = strings.Replace(lines[len(lines)-1], "-", " ", 1)
		return s.do(verb, strings.Join(lines, "\n"))
	case "HELO":
		return s.do(verb, "250 relay.example")
	case "STARTTLS":
		if !s.do(verb, "220 go ahead") {
			return false
		}
		conn := tls.Server(s.conn, s.relay.tls)
		s.conn, s.br = conn, bufio.NewReader(conn)
		return conn.Handshake() == nil
	case "AUTH":
		return s.auth(arg)
	case "RSET":
		s.mail, s.rcpts = false, nil
		return s.do(verb, "250 reset")
	case "MAIL":
		if s.mail {
			return s.do(verb, "503 5.5.1 nested MAIL")
		}
		s.from = between(arg)
		ok := s.takes(verb)
		s.mail = ok
		return s.do(verb, "250 2.1.0 ok")
	case "RCPT":
		if !s.mail {
			return s.do(verb, "503 5.5.1 MAIL first")
		}
		if s.takes(verb) {
			s.rcpts = append(s.rcpts, between(arg))
		}
		return s.do(verb, "250 2.1.5 ok")
	case "DATA":
		if len(s.rcpts) == 0 {
			return s.do(verb, "554 5.5.1 no valid recipients")
		}
		takes := s.takes(verb)
		return s.do(verb, "354 go ahead") && (!takes || s.content())
	case "BDAT":
		return s.chunk(arg)
	case "QUIT":
		s.do(verb, "221 bye")
		return false
	}
	return s.do(verb, "500 what?")
}

// auth knows PLAIN and LOGIN, and words its prompts as badly as some do.
func (s *session) auth(arg string) bool {
	mech, response, _ := strings.Cut(arg, " ")
	if _, scripted := s.script[mech+" 1"]; scripted && mech != "PLAIN" && mech != "LOGIN" {
		return s.do(mech, "")
	}
	want := []string{"\x00" + s.user + "\x00" + s.secret}
	if mech == "LOGIN" {
		want = []string{s.user, s.secret}
	}
	for i, w := range want {
		if i > 0 || response == "" {
			if !s.do("PROMPT", "334 d2hvIGFyZSB5b3U/") {
				return false
			}
			line, err := s.br.ReadString('\n')
			if err != nil {
				return false
			}
			response = strings.TrimRight(line, "\r\n")
		}
		if response != base64.StdEncoding.EncodeToString([]byte(w)) {
			return s.do(mech, "535 5.7.8 wrong: "+response)
		}
	}
	s.mu.Lock()
	s.logins++
	s.mu.Unlock()
	return s.do(mech, "235 2.7.0 welcome")
}

// takes tells whether the script lets the verb's next answer be positive.
func (s *session) takes(verb string) bool {
	a, scripted := s.script[fmt.Sprintf("%s %d", verb, s.seen[verb]+1)]
	said := a.reply + a.later
	return !scripted || a.take > 0 || a.take == 0 && (strings.HasPrefix(said, "2") || strings.HasPrefix(said, "3"))
}

func (s *session) content() bool {
	s.seen["BODY"]++
	a, early := s.script[fmt.Sprintf("BODY %d", s.seen["BODY"])]
	var body strings.Builder
	for {
		line, err := s.br.ReadString('\n')
		if err != nil {
			return false
		}
		if early {
			if early = false; !s.act(a) {
				return false
			}
		}
		if line == ".\r\n" {
			break
		}
		body.WriteString(strings.TrimPrefix(line, "."))
	}
	if s.forgets {
		s.br.Discard(s.br.Buffered())
	}
	return s.whole(body.String())
}

// whole ends a content.
func (s *session) whole(body string) bool {
	if s.takes("DOT") {
		s.mu.Lock()
		s.accepted = append(s.accepted, accepted{s.from, s.rcpts, body})
		s.mu.Unlock()
	}
	s.mail, s.rcpts = false, nil
	return s.do("DOT", "250 2.0.0 queued")
}

// chunk takes the one chunk of a content. Without a recipient it reads and refuses it (RFC 3030 section 2).
func (s *session) chunk(arg string) bool {
	var n int
	if _, err := fmt.Sscanf(arg, "%d LAST", &n); err != nil {
		return s.do("BDAT", "501 5.5.4 syntax")
	}
	s.seen["BODY"]++
	if a, early := s.script[fmt.Sprintf("BODY %d", s.seen["BODY"])]; early {
		if _, err := s.br.Peek(min(n, 1)); err != nil || !s.act(a) {
			return false
		}
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(s.br, body); err != nil {
		return false
	}
	switch {
	case !s.mail:
		return s.do("BDAT", "503 5.5.1 MAIL first")
	case len(s.rcpts) == 0:
		return s.do("BDAT", "554 5.5.1 no valid recipients")
	}
	return s.whole(string(body))
}

func between(arg string) string {
	_, a, _ := strings.Cut(arg, "<")
	a, _, _ = strings.Cut(a, ">")
	return a
}

// letter makes a job for message n to so many recipients, r1.n@example.com and so on.
func letter(n, rcpts int) *Job {
	env := &message.Envelope{ID: message.ID(n), From: fmt.Sprintf("s%d@example.org", n)}
	j := &Job{Env: env}
	for i := range rcpts {
		env.To = append(env.To, message.Recipient{Addr: fmt.Sprintf("r%d.%d@example.com", i+1, n)})
		j.To = append(j.To, i)
	}
	body := fmt.Sprintf("Subject: %d\r\n\r\n.dot %d\r\n", n, n)
	env.Size = int64(len(body))
	j.Open = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(body)), nil }
	return j
}

func letters(n, rcpts int) (jobs []*Job) {
	for i := range n {
		jobs = append(jobs, letter(i+1, rcpts))
	}
	return jobs
}

// send runs c with jobs, all of which wait in the feed from the start, and returns what came of it.
func send(c *Conn, jobs ...*Job) ([]*Result, flowctl.Outcome) {
	feed := make(chan *Job, len(jobs))
	for _, j := range jobs {
		feed <- j
	}
	close(feed)
	var results []*Result
	out := c.Run(feed, func(r *Result) { results = append(results, r) })
	return results, out
}

// took tells whether the relay took responsibility for message n towards its i-th recipient, and how often.
func (r *relay) took(j *Job, i int) (times int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, a := range r.accepted {
		if a.from == j.Env.From && slices.Contains(a.to, j.Env.To[j.To[i]].Addr) {
			times++
		}
	}
	return times
}

// checkTruth compares what the results say with what the relay knows. It is the promise of this package.
func (r *relay) checkTruth(t *testing.T, jobs []*Job, results []*Result) {
	t.Helper()
	r.wg.Wait() // it may still be at work on what it had read
	for k, res := range results {
		if res.Job != jobs[k] {
			t.Fatalf("result %d is not that of job %d", k, k)
		}
		if res.HandedBack != (res.Verdicts == nil) || res.HandedBack && res.Uncertain {
			t.Errorf("message %d: handed back %v, uncertain %v, verdicts %v", k+1, res.HandedBack, res.Uncertain, res.Verdicts)
		}
		for i := range res.Job.To {
			times := r.took(res.Job, i)
			switch {
			case times > 1:
				t.Errorf("message %d, recipient %d: taken %d times", k+1, i+1, times)
			case res.HandedBack && times != 0:
				t.Errorf("message %d, recipient %d: handed back, but the relay took it", k+1, i+1)
			case res.HandedBack:
			case res.Verdicts[i].Class == flowctl.OK && times != 1:
				t.Errorf("message %d, recipient %d: delivered, but the relay did not take it", k+1, i+1)
			case res.Verdicts[i].Class != flowctl.OK && times != 0 && !res.Uncertain:
				t.Errorf("message %d, recipient %d: %v, but the relay took it", k+1, i+1, res.Verdicts[i].Reply)
			case res.Uncertain && res.Verdicts[i].Class == flowctl.Permanent && times != 0:
				t.Errorf("message %d, recipient %d: permanent, but the relay took it", k+1, i+1)
			}
		}
	}
	for _, a := range r.accepted {
		if strings.HasPrefix(a.body, "x") {
			continue // of a test of its own
		}
		var n int
		fmt.Sscanf(a.from, "s%d@", &n)
		if want := fmt.Sprintf("Subject: %d\r\n\r\n.dot %d\r\n", n, n); a.body != want {
			t.Errorf("message %d: the relay took %q, want %q", n, a.body, want)
		}
	}
}

// inBubble runs f in a bubble and joins the relay's goroutines at its end.
func inBubble(t *testing.T, r *relay, f func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f(t)
		r.wg.Wait()
	})
}
