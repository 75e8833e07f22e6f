package smtpd

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/mailweir/mailweir/bench/memconn"
)

// smuggled is what follows a false end of data: a whole transaction.
const smuggled = "MAIL FROM:<evil@b>\r\nRCPT TO:<victim@d>\r\nDATA\r\nforged"

// falseEnds are sequences that some server somewhere has taken for the end of data, and what each
// becomes within a body; "refused" for those with NUL.
var falseEnds = []struct{ wire, body string }{
	{"\n.\n", "\r\n.\r\n"},
	{"\r.\r", " . "},
	{"\r.\n", " .\r\n"},
	{"\n.\r", "\r\n. "},
	{"\n.\r\n", "\r\n.\r\n"},
	{"\r\n.\n", "\r\n\r\n"},
	{"\r.\r\n", " .\r\n"},
	{"\r\n.\r", "\r\n "},
	{"\r\n\x00.\r\n", "refused"},
	{"\r\n.\x00\r\n", "refused"},
	{"\r\n.\r\r\n", "\r\n \r\n"},
	{"\r\r\n.\r\r\n", " \r\n \r\n"},
	{"\r\r\n..\r\n", " \r\n.\r\n"},
	{"\n\n.\r\n", "\r\n\r\n.\r\n"},
	{"\r\n. \r\n", "\r\n \r\n"},
	{"\n\r\n.\r\r\n", "\r\n\r\n \r\n"},
}

func TestNoFalseEndOfDataYieldsASecondMessage(t *testing.T) {
	for _, s := range falseEnds {
		t.Run(fmt.Sprintf("%q", s.wire), func(t *testing.T) {
			bubble(t, testConfig(), func(t *testing.T, f *front) {
				c := f.greeted(t)
				c.toData()
				c.send("first" + s.wire + smuggled + "\r\n.\r\n")
				checkSmuggled(t, f, c, s.body)
			})
		})
		t.Run(fmt.Sprintf("%q pipelined", s.wire), func(t *testing.T) {
			bubble(t, testConfig(), func(t *testing.T, f *front) {
				c := f.greeted(t)
				c.send("MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nfirst" + s.wire + smuggled + "\r\n.\r\n")
				c.want("250 2.1.0", "250 2.1.5", "354")
				checkSmuggled(t, f, c, s.body)
			})
		})
	}
}

// Cuts at every octet share one connection for each sequence, so that all of them also follow one another.
func TestNoFalseEndOfDataYieldsASecondMessageWhereverTheStreamIsCut(t *testing.T) {
	for _, s := range falseEnds {
		t.Run(fmt.Sprintf("%q", s.wire), func(t *testing.T) {
			bubble(t, testConfig(), func(t *testing.T, f *front) {
				c := f.greeted(t)
				wire := "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nfirst" + s.wire + smuggled + "\r\n.\r\n"
				var want []string
				for cut := 1; cut < len(wire); cut++ {
					c.send(wire[:cut])
					synctest.Wait()
					c.send(wire[cut:])
					c.want("250 2.1.0", "250 2.1.5", "354")
					if s.body == "refused" {
						c.want("550 5.6.0")
						continue
					}
					c.want("250 2.0.0 queued as ")
					want = append(want, "first"+s.body+smuggled+"\r\n")
				}
				wantBodies(t, f, want...)
			})
		})
	}
}

func checkSmuggled(t *testing.T, f *front, c *client, body string) {
	t.Helper()
	if body == "refused" {
		c.want("550 5.6.0")
		wantBodies(t, f)
	} else {
		c.want("250 2.0.0 queued as ")
		wantBodies(t, f, "first"+body+smuggled+"\r\n")
	}
	c.send("NOOP\r\n")
	c.want("250 2.0.0 I have") // and not the reply to a smuggled command
}

// A false end that lies across the buffer's border must be no other than one within it.
func TestFalseEndsAtTheBordersOfTheBuffers(t *testing.T) {
	bubble(t, testConfig(), func(t *testing.T, f *front) {
		c := f.greeted(t)
		var want []string
		for _, border := range []int{maxCommandLine, smallWrites, contentBuffer, 2 * contentBuffer} {
			for _, s := range falseEnds {
				for off := -len(s.wire) - 1; off <= 1; off++ {
					if s.body == "refused" {
						continue
					}
					filler := strings.Repeat("x", border+off)
					c.toData()
					c.send(filler + s.wire + smuggled + "\r\n.\r\n")
					c.want("250 2.0.0 queued as ")
					want = append(want, filler+s.body+smuggled+"\r\n")
				}
			}
		}
		wantBodies(t, f, want...)
	})
}

// A chunk ends where its size says. Where that is not known, or the connection ends before, nothing is accepted and nothing executed.
func TestAChunkIsNeverReadAsCommands(t *testing.T) {
	const inside = smuggled + "\r\n.\r\n"
	for _, at := range []int{0, 1, len("RSET"), len(inside)} { // where the stream is cut
		for _, first := range []string{"", "BDAT 3\r\nabc"} {
			bubble(t, testConfig(), func(t *testing.T, f *front) {
				c := f.greeted(t)
				c.send("MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n")
				c.want("250 2.1.0", "250 2.1.5")
				c.send(first)
				if first != "" {
					c.want("250 2.0.0 3 octets")
				}
				c.send(fmt.Sprintf("BDAT %d LAST\r\n", len(inside)) + inside[:at])
				synctest.Wait()
				c.send(inside[at:])
				c.want("250 2.0.0 queued as ")
				c.send("NOOP\r\n")
				c.want("250 2.0.0 I have")
				wantBodies(t, f, strings.TrimPrefix(first, "BDAT 3\r\n")+inside)
			})
		}
	}
	for _, size := range []string{"", "x", "-1", "+1", "1 2", "1 LAST x", "99999999999999999999 LAST", "0x1"} {
		for _, first := range []string{"", "BDAT 3\r\nabc"} {
			bubble(t, testConfig(), func(t *testing.T, f *front) {
				c := f.greeted(t)
				c.send("MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n" + first + "BDAT " + size + "\r\n" + inside)
				c.want("250 2.1.0", "250 2.1.5")
				if first != "" {
					c.want("250 2.0.0 3 octets")
				}
				c.want("501 5.5.4")
				c.wantEnd()
				wantBodies(t, f)
			})
		}
	}
}

// go-smtp takes a chunk that broke off for a whole one (finding 1).
func TestAChunkThatBreaksOffIsNeverAccepted(t *testing.T) {
	for _, wire := range []string{"BDAT 1000 LAST\r\n", "BDAT 1000 LAST\r\nshort\r\n", "BDAT 5\r\nhello", "BDAT 5\r\nhelloBDAT 1 LAST\r\n"} {
		bubble(t, testConfig(), func(t *testing.T, f *front) {
			c := f.greeted(t)
			c.send("MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n" + wire)
			if err := c.Conn.(*memconn.Conn).CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if said, err := io.ReadAll(c.r); err != nil || strings.Contains(string(said), "queued") {
				t.Errorf("%q: %q, %v", wire, said, err)
			}
			synctest.Wait()
			wantBodies(t, f)
			if f.memory.ended != 1 {
				t.Errorf("%q: %d drafts ended", wire, f.memory.ended)
			}
		})
	}
}

func TestEmptyChunksAreBounded(t *testing.T) {
	bubble(t, testConfig(), func(t *testing.T, f *front) {
		c := f.greeted(t)
		c.send("MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n")
		c.want("250 2.1.0", "250 2.1.5")
		for n := 0; ; n++ {
			_, unsent := c.Write([]byte("BDAT 0\r\n")) // the reply says more than a failure
			got, err := c.reply()
			if err != nil {
				t.Fatal(err, unsent)
			}
			if strings.HasPrefix(got, "421 4.7.0") {
				break
			}
			if n > f.maxFruitless() {
				t.Fatalf("%d chunks, and still %q", n, got)
			}
		}
		c.wantEnd()
		wantBodies(t, f)
	})
}
