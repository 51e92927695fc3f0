package mail

import (
	"errors"
	"strings"
)

// maxName bounds a display name, in bytes.
const maxName = 200

// ParseMailbox reads the sender of a mail as configuration and requests write it: one
// address, or a display name, quoted or not, and one address in angle brackets. It also
// reads the form in which Message.From and Message.ReplyTo are kept.
//
// An error never repeats what was read.
func ParseMailbox(s string) (name string, a Address, err error) {
	if len(s) > maxName+maxTyped {
		return "", "", errAddressLong
	}
	if bad := unshowable(s); bad != "" {
		return "", "", errors.New("it holds " + bad)
	}
	addr := strings.TrimSpace(s)
	if open := strings.LastIndexByte(addr, '<'); open >= 0 && strings.HasSuffix(addr, ">") {
		name, addr = strings.TrimSpace(addr[:open]), addr[open+1:len(addr)-1]
	}
	if len(name) >= 2 && name[0] == '"' && name[len(name)-1] == '"' {
		name = strings.TrimSpace(unquote(name))
	} else if strings.ContainsAny(name, `()<>[]:;@\,"`) {
		return "", "", errors.New("the name in front of the address holds punctuation and needs quotes, or there are two addresses")
	}
	if len(name) > maxName {
		return "", "", errors.New("the name in front of the address is too long")
	}
	a, err = ParseAddress(addr)
	return name, a, err
}

// unquote undoes a quoted-string (RFC 5322 3.2.4).
func unquote(s string) string {
	var b strings.Builder
	for i := 1; i < len(s)-1; i++ {
		if s[i] == '\\' && i < len(s)-2 {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// quote writes a quoted-string.
func quote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// joinMailbox is the form in which Message.From is kept: the address alone, or the name
// and the address, the name in quotes where [ParseMailbox] wants them.
func joinMailbox(name string, a Address) string {
	switch {
	case name == "":
		return string(a)
	case strings.ContainsAny(name, `()<>[]:;@\,"`):
		name = quote(name)
	}
	return name + " <" + string(a) + ">"
}
