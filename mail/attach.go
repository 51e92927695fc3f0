package mail

import (
	"bytes"
	"encoding/base64"
	"fmt"
)

// attachedName is where Data keeps a whole mail that goes along. It has a dot, as no
// name in a request's data may, so that only [Request.Attached] gets there; and being
// in Data it is sealed, and destroyed with it.
const attachedName = "original.eml"

// MaxAttached is the largest mail that can go along, in bytes: in base64 and sealed it
// still is one message for a NATS server, which takes 1 MiB unless told otherwise.
const MaxAttached = 700 << 10

func prepareAttached(m *Message, r Request) *Problem {
	if r.Attached == nil {
		return nil
	}
	if len(r.Attached) > MaxAttached {
		return &Problem{Type: ProblemTooLarge, Title: "The attached mail is too large", Status: 413,
			Detail: fmt.Sprintf("At most %d KiB are taken.", MaxAttached>>10)}
	}
	m.Data[attachedName] = base64.StdEncoding.EncodeToString(r.Attached)
	return nil
}

// attached returns the mail that goes along, nil if there is none.
func (m *Message) attached() ([]byte, error) {
	text, ok := m.Data[attachedName].(string)
	if !ok {
		return nil, nil
	}
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, errShape
	}
	return raw, nil
}

// appendAttached writes a mail as the last part of a multipart. A message/rfc822 may
// not be in base64 (RFC 2046 5.2.1), and our bytes are signed, so that nothing on the
// way may change them: it has to be 7-bit as it is. A mail that isn't goes as a file,
// whose name every mail program opens.
func appendAttached(b []byte, boundary string, raw []byte) []byte {
	b = append(b, "--"+boundary+crlf...)
	disposition := "attachment; filename=\"" + attachedName + "\""
	if isSevenBit(raw) {
		b = appendHeader(b, "Content-Type", "message/rfc822")
		b = appendHeader(b, "Content-Disposition", disposition)
		b = append(b, crlf...)
		b = append(b, raw...)
	} else {
		b = appendHeader(b, "Content-Type", "application/octet-stream; name=\""+attachedName+"\"")
		b = appendHeader(b, "Content-Disposition", disposition)
		b = appendHeader(b, "Content-Transfer-Encoding", "base64")
		b = append(b, crlf...)
		b = appendBase64(b, raw)
	}
	return append(b, crlf+"--"+boundary+"--"+crlf...)
}

// isSevenBit reports whether raw is what RFC 2045 2.7 calls 7bit: lines of at most 998
// octets from 1 to 127, ended by CRLF, which occurs nowhere else.
func isSevenBit(raw []byte) bool {
	for len(raw) > 0 {
		line, rest, _ := bytes.Cut(raw, []byte(crlf))
		if len(line) > 998 {
			return false
		}
		for _, c := range line {
			if c == 0 || c == '\r' || c == '\n' || c > 0x7f {
				return false
			}
		}
		raw = rest
	}
	return true
}

// appendBase64 writes raw in lines of 76 characters (RFC 2045 6.8).
func appendBase64(b, raw []byte) []byte {
	const perLine = 57
	for len(raw) > 0 {
		n := min(perLine, len(raw))
		b = base64.StdEncoding.AppendEncode(b, raw[:n])
		b = append(b, crlf...)
		raw = raw[n:]
	}
	return b
}
