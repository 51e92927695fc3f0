package bounces

import (
	_ "embed"
	"fmt"
	"sync"
)

//go:embed mails.txt
var mailFile string

// sign is what a phrase of mails.txt is a sign of.
type sign int

const (
	signDaemon sign = iota
	signBounceSubject
	signDelay
	signBounceBody
	signAutoReply
	signAutoReplyHint
	signComplaint
	signCount
)

// signNames are the blocks of mails.txt.
var signNames = [signCount]string{
	"daemon", "bounce-subject", "delay", "bounce-body", "autoreply-subject", "autoreply-hint", "complaint-subject",
}

// signs are the signs found in a text.
type signs uint16

func (s signs) has(n sign) bool { return s&(1<<n) != 0 }

// mailWords parses mails.txt once. A sign's "unless" patterns have the targets after
// those of all signs.
var mailWords = sync.OnceValue(func() *matcher {
	m, err := loadMailWords(mailFile)
	if err != nil {
		panic(err)
	}
	return m
})

func loadMailWords(text string) (*matcher, error) {
	blocks, err := parseBlocks("mails.txt", text)
	if err != nil {
		return nil, err
	}
	b := newBuilder()
	for _, bl := range blocks {
		n := -1
		for i, name := range signNames {
			if bl.keyword == "phrases" && bl.name == name {
				n = i
			}
		}
		if n < 0 {
			return nil, fmt.Errorf("mails.txt:%d: unknown block %q", bl.line, bl.name)
		}
		for _, f := range bl.fields {
			target := n
			switch f.keyword {
			case "text":
			case "unless":
				target += int(signCount)
			default:
				return nil, fmt.Errorf("mails.txt:%d: unknown field %q", f.line, f.keyword)
			}
			if err := addAll(b, f.value, target); err != nil {
				return nil, fmt.Errorf("mails.txt:%d: %w", f.line, err)
			}
		}
	}
	return b.build()
}

// signsOf finds the signs in text, of which only the first 2 KiB are looked at.
func signsOf(text []byte) signs {
	var n normaliser
	var found bits
	mailWords().scan(n.normalise(string(text[:min(len(text), maxNormal)]), 0), &found)
	var s signs
	for i := range signCount {
		if found.has(int(i)) && !found.has(int(i+signCount)) {
			s |= 1 << i
		}
	}
	return s
}
