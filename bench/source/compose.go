package source

import (
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
)

// mail is a message to be sent.
type mail struct {
	record  Record // To: all recipients, until they were tried
	content []byte // CRLF line ends; begins with X-Id, which the checker relies on
}

const (
	lineLength = 76 // of the body, without CRLF
	letters    = "abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ 0123456789."
)

// compose makes the n-th message; the same configuration makes the same one.
func compose(cfg Config, n int) *mail {
	id := fmt.Sprintf("%s-%d", cfg.Name, n)
	to := []string{fmt.Sprintf("user%d@source.example", n)}
	if cfg.Recipients != nil {
		to = cfg.Recipients(n)
	}
	content := fmt.Appendf(nil, "X-Id: %s\r\nMessage-ID: <%s@source.example>\r\nFrom: <%s>\r\nTo: <%s>\r\n"+
		"Date: Sat, 01 Jan 2000 00:00:00 +0000\r\nSubject: message %d\r\n\r\n", id, id, cfg.From, to[0], n)
	content = fill(content, cfg.Size, uint64(n))
	return &mail{
		content: content,
		record:  Record{XID: id, From: cfg.From, To: to, Sum: sha256.Sum256(content), Size: int64(len(content))},
	}
}

// fill appends lines of a text that seed decides until the content has size octets. Some lines begin with dots, since
// those may be confused with the end of data.
func fill(content []byte, size int, seed uint64) []byte {
	text := rand.New(rand.NewPCG(seed, 0))
	for rest := size - len(content); rest >= 2; rest = size - len(content) {
		n := min(lineLength, rest-2)
		if rest-2-n == 1 {
			n-- // one octet would be too few for the last line
		}
		for i := range n {
			c := letters[text.IntN(len(letters))]
			if i == 0 && text.IntN(8) == 0 {
				c = '.'
			}
			content = append(content, c)
		}
		content = append(content, "\r\n"...)
	}
	return content
}
