package proxy

import (
	"context"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/mailweir/mailweir/bench/memconn"
	"github.com/mailweir/mailweir/bench/relay"
	"github.com/mailweir/mailweir/flowctl"
	"github.com/mailweir/mailweir/proxy/upstream"
)

// diary is what happened, in order.
type diary struct {
	mu    sync.Mutex
	began time.Time
	words []string
	took  time.Duration // until the last one
}

func (d *diary) note(word string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !slices.Contains(d.words, word) {
		d.words = append(d.words, word)
		d.took = time.Since(d.began)
	}
}

type notedConn struct {
	net.Conn
	diary *diary
}

func (c *notedConn) Close() error {
	err := c.Conn.Close()
	c.diary.note("closed")
	return err
}

// A place that is given up must be free before the controller hears so: what it leaves to others begins then.
func TestARetiredConnectionIsClosedBeforeItIsOver(t *testing.T) {
	const rtt = 20 * time.Millisecond
	for name, quit := range map[string]struct {
		act  relay.Action
		most time.Duration
	}{"answered": {relay.Action{}, 2 * rtt}, "not answered": {relay.Action{Stall: true}, 3 * time.Second}} {
		t.Run(name, func(t *testing.T) {
			in(t, func(t *testing.T) {
				d := new(diary)
				up := memconn.Listen()
				r := relay.New(relay.Config{RTT: rtt, Reply: func(e relay.Event) relay.Action {
					if e.Stage != relay.StageQuit {
						return relay.Action{}
					}
					d.note("QUIT")
					return quit.act
				}})
				var serving sync.WaitGroup
				serving.Go(func() {
					if err := r.Serve(up); err != nil {
						t.Error(err)
					}
				})
				client, err := upstream.New(upstream.Config{URL: "smtp://relay.example:25", Hostname: "weir.example",
					Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
						c, err := up.Dial(ctx, network, addr)
						return &notedConn{c, d}, err
					}})
				if err != nil {
					t.Fatal(err)
				}
				ctx := context.Background()
				p := &pool{client: client, log: zap.NewNop(), dialing: ctx, cut: ctx, post: func(f func(time.Time)) { f(time.Now()) }}
				p.start(1, nil)
				p.dial(&link{feed: make(chan *upstream.Job, maxFed)}, "relay.example:25", linkEvents{
					dialed: func(now time.Time, l *link, conn *upstream.Conn, o flowctl.Outcome) {
						if conn == nil {
							t.Error(o)
						}
						d.began = now
						l.close()
					},
					ended: func(time.Time, *link, flowctl.Outcome, bool) { d.note("over") },
				})
				p.wait()
				r.Close()
				serving.Wait()
				if !slices.Equal(d.words, []string{"QUIT", "closed", "over"}) || d.took > quit.most {
					t.Errorf("%v within %v", d.words, d.took)
				}
			})
		})
	}
}
