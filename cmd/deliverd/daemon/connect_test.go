package daemon

import (
	"strings"
	"testing"
)

// A password that somebody wrote into nats.url is in no error, and so in no log.
func TestConnectErrorsHaveNoPassword(t *testing.T) {
	t.Parallel()
	for _, url := range []string{
		"nats://user:hunter2%zz@127.0.0.1:1",
		"nats://user:hunter2@127.0.0.1:1",
		"nats://user:hunter2@127.0.0.1:x",
		"nats://user:hunter2@127.0.0.1:1,nats://user:hunter2%zz@127.0.0.1:1",
		"nats://hunter2@127.0.0.1:1", // a token
	} {
		nc, err := connect(nil, url, "", discard)
		if err == nil {
			nc.Close()
			t.Fatal("connected to nothing")
		}
		if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the error tells the password: %v", err)
		}
	}
}
