package smtpd

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
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

func TestAChunkIsNeverReadAsCommands(t *testing.T) {
	for _, chunk := range []string{
		"BDAT 5 LAST\r\nhello" + smuggled + "\r\n.\r\n",
		"BDAT 0 LAST\r\n" + smuggled + "\r\n.\r\n",
		"BDAT 5\r\nhelloBDAT 0 LAST\r\n",
		"bdat " + smuggled + "\r\n.\r\n",
		"BDAT 99999999999999999999 LAST\r\n" + smuggled + "\r\n.\r\n",
	} {
		bubble(t, testConfig(), func(t *testing.T, f *front) {
			c := f.greeted(t)
			c.send("MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n" + chunk)
			c.want("250 2.1.0", "250 2.1.5", "502 5.5.1")
			c.wantEnd()
			wantBodies(t, f)
		})
	}
}
