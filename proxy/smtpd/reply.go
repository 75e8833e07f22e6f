package smtpd

import (
	"errors"
	"strconv"

	"github.com/emersion/go-smtp"
)

// refusal is an error whose reply is part of it. Only this package can make one, so that nothing a Store
// returns can become a permanent failure by accident.
type refusal struct {
	code     int
	enhanced smtp.EnhancedCode
	text     string
}

func (r *refusal) Error() string { return r.text }

// What is refused, and how (RFC 5321 section 4.2, RFC 3463).
var (
	errUnknown     = &refusal{500, smtp.EnhancedCode{5, 5, 2}, "command not recognized"}
	errLineTooLong = &refusal{500, smtp.EnhancedCode{5, 5, 2}, "line too long, closing connection"}
	errControl     = &refusal{500, smtp.EnhancedCode{5, 5, 2}, "control character in command"}
	errNotOffered  = &refusal{502, smtp.EnhancedCode{5, 5, 1}, "command not implemented"}
	errChunk       = &refusal{501, smtp.EnhancedCode{5, 5, 4}, "not the size of a chunk, closing connection"}
	errSequence    = &refusal{503, smtp.EnhancedCode{5, 5, 1}, "bad sequence of commands"}
	errNested      = &refusal{503, smtp.EnhancedCode{5, 5, 1}, "a mail transaction is open already"}
	errSyntax      = &refusal{501, smtp.EnhancedCode{5, 5, 4}, "syntax error in arguments"}
	errParameter   = &refusal{501, smtp.EnhancedCode{5, 5, 4}, "malformed parameter"}
	errUnsupported = &refusal{555, smtp.EnhancedCode{5, 5, 4}, "parameter not supported"}
	errMechanism   = &refusal{504, smtp.EnhancedCode{5, 5, 4}, "authentication mechanism not supported"}
	errSender      = &refusal{553, smtp.EnhancedCode{5, 1, 7}, "sender is not a valid address"}
	errRecipient   = &refusal{553, smtp.EnhancedCode{5, 1, 3}, "recipient is not a valid address"}
	errRecipients  = &refusal{452, smtp.EnhancedCode{4, 5, 3}, "too many recipients"}
	errRoom        = &refusal{452, smtp.EnhancedCode{4, 3, 1}, "too many recipients in open transactions, try again later"}
	errTooBig      = &refusal{552, smtp.EnhancedCode{5, 3, 4}, "message is larger than the limit"}
	errNUL         = &refusal{550, smtp.EnhancedCode{5, 6, 0}, "message contains NUL"}
	errBareNewline = &refusal{550, smtp.EnhancedCode{5, 6, 0}, "message contains bare CR or LF"}
	errHops        = &refusal{554, smtp.EnhancedCode{5, 4, 6}, "too many Received header fields, mail loop?"}
	errIdle        = &refusal{421, smtp.EnhancedCode{4, 4, 2}, "timeout, closing connection"}
	errSlow        = &refusal{421, smtp.EnhancedCode{4, 4, 2}, "content too slow, closing connection"}
	errAbuse       = &refusal{421, smtp.EnhancedCode{4, 7, 0}, "too many errors, closing connection"}
)

// reply turns err into what the client hears; every reply to an error comes from here. What it does not know
// is temporary, and its text stays inside.
func reply(err error) *smtp.SMTPError {
	var r *refusal
	switch {
	case errors.As(err, &r):
		return &smtp.SMTPError{Code: r.code, EnhancedCode: r.enhanced, Message: r.text}
	case errors.Is(err, ErrFull):
		return &smtp.SMTPError{Code: 452, EnhancedCode: smtp.EnhancedCode{4, 3, 1}, Message: "journal is full, try again later"}
	case errors.Is(err, ErrClosing):
		return &smtp.SMTPError{Code: 421, EnhancedCode: smtp.EnhancedCode{4, 3, 2}, Message: "service closing, try again later"}
	}
	return &smtp.SMTPError{Code: 451, EnhancedCode: smtp.EnhancedCode{4, 3, 0}, Message: "local error, try again later"}
}

// isKnown says whether reply has words of its own for err. Others are logged.
func isKnown(err error) bool {
	var r *refusal
	return errors.As(err, &r) || errors.Is(err, ErrFull) || errors.Is(err, ErrClosing)
}

// queued is the reply to an accepted message; go-smtp sends any other than its own as an error.
func queued(id string) *smtp.SMTPError {
	return &smtp.SMTPError{Code: 250, EnhancedCode: smtp.EnhancedCode{2, 0, 0}, Message: "queued as " + id}
}

// chunkTaken is the reply to a chunk that is not the last one of its message.
func chunkTaken(octets int64) *smtp.SMTPError {
	return &smtp.SMTPError{Code: 250, EnhancedCode: smtp.EnhancedCode{2, 0, 0}, Message: strconv.FormatInt(octets, 10) + " octets taken"}
}

// appendReply appends r as one line.
func appendReply(b []byte, r *smtp.SMTPError) []byte {
	b = strconv.AppendInt(b, int64(r.Code), 10)
	for i, n := range r.EnhancedCode {
		b = append(b, " .."[i])
		b = strconv.AppendInt(b, int64(n), 10)
	}
	b = append(b, ' ')
	b = append(b, r.Message...)
	return append(b, '\r', '\n')
}
