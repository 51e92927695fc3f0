package daemon

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"time"

	"github.com/deliverd/deliverd/bounces"
	"github.com/deliverd/deliverd/console"
	"github.com/deliverd/deliverd/intake"
	"github.com/deliverd/deliverd/mail"
	"github.com/deliverd/deliverd/queue"
)

// openQueue opens the store and the queue in it.
func (d *Daemon) openQueue(ctx context.Context) error {
	c := d.config
	d.start("memory", tendMemory)
	if c.NATS.URL == "" {
		sync, err := c.NATS.syncInterval()
		if err != nil {
			return err
		}
		password, err := c.NATS.Password.read()
		if err != nil {
			return fmt.Errorf("nats.password: %w", err)
		}
		if d.embedded, err = startEmbedded(c.Data, c.Listen.NATS, sync, string(password), d.log); err != nil {
			return err
		}
		d.cleanups.add("NATS server", func(context.Context) error { d.embedded.stop(); return nil })
	}
	var err error
	if d.nc, err = connect(d.embedded, c.NATS.URL, c.NATS.Credentials, d.log); err != nil {
		return err
	}
	d.cleanups.add("NATS connection", func(context.Context) error { d.nc.Close(); return nil })

	seal, ours, made, err := d.openKeyRing()
	if err != nil {
		return err
	}
	journal := ""
	if d.embedded != nil {
		journal = c.dataFile("attempts.journal")
	}
	d.queue, err = queue.Open(ctx, d.nc, queue.Options{
		Kinds: c.queueKinds(), Seal: seal, Shards: c.NATS.Shards, Replicas: c.NATS.Replicas,
		Alone:       d.embedded != nil,
		Concurrency: c.Send.Concurrency, Reserved: max(1, c.Send.Concurrency/5), PerDestination: c.Send.PerDestination,
		Journal:     journal,
		Destination: d.destination, Limits: d.limits,
		Provider: d.providers.of, Observe: d.observe, Log: d.log,
	})
	if err != nil {
		return err
	}
	d.cleanups.add("queue", func(context.Context) error { return d.queue.Close() })
	d.openServiceLog()
	if made {
		d.notice("key.made", seal.Newest(), "the first key that seals secrets; keep a copy of the ring apart from the rest of the data")
	}
	d.start("store watch", d.watchStore)
	if ours {
		d.start("key ring", func(ctx context.Context) { d.tendKeys(ctx, seal) })
	}
	d.start("what the scan left", d.afterScan)
	d.start("audit", d.auditLoop)
	d.start("suppressions", d.suppressLoop)
	return nil
}

// openKeyRing reads the keys that seal secrets, and says whether this process is the
// only one that uses them, and whether it has just made the first.
func (d *Daemon) openKeyRing() (ring *queue.KeyRing, ours, made bool, err error) {
	path := d.config.Keys.Seal.Path()
	if path == "" {
		ours, path = true, d.config.dataFile("keys", "seal.ring")
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return nil, false, false, err
		}
	}
	_, err = os.Stat(path)
	made = errors.Is(err, fs.ErrNotExist)
	ring, err = queue.OpenKeyRing(path)
	return ring, ours, made, err
}

const (
	// tendEvery and ringEvery: a key of the ring seals for a day, and is destroyed once
	// nothing that it sealed can still be sent. A copy of the store made before then
	// can't be opened any more.
	tendEvery = time.Hour
	ringEvery = 24 * time.Hour
)

// tendKeys turns the ring over.
func (d *Daemon) tendKeys(ctx context.Context, ring *queue.KeyRing) {
	for sleep(ctx, tendEvery) {
		before := ring.Newest()
		if err := ring.Tend(time.Now(), ringEvery); err != nil {
			d.log.Error("the key ring could not be turned over; old keys stay", "error", err)
		}
		if now := ring.Newest(); now != before {
			d.notice("key.made", now, "new secrets are sealed with it; older keys go when nothing needs them")
		}
	}
}

// rootKey is what the keys are derived from that have to outlive rotations of the
// ring: of return paths and of request hashes.
func (c *Config) rootKey() ([]byte, error) {
	if c.Keys.Root == "" {
		return keyFile(c.dataFile("keys", "root.key"))
	}
	key, err := c.Keys.Root.Read()
	if err != nil {
		return nil, fmt.Errorf("keys.root: %w", err)
	}
	if len(key) < 32 {
		return nil, errors.New("keys.root: the key is shorter than 32 bytes; make one with `openssl rand -hex 32`")
	}
	return key, nil
}

// derive makes a key for one purpose from the installation's root key.
func derive(root []byte, purpose string) ([]byte, error) {
	return hkdf.Key(sha256.New, root, nil, "deliverd "+purpose, 32)
}

// observe sees every event that this node records.
func (d *Daemon) observe(e mail.Event) {
	d.metrics.observe(e)
	d.delays.learn(&e)
	if e.Evidence != nil && e.Evidence.Provider != "" {
		d.providers.learn(e.To.Domain(), e.Evidence.Provider)
	}
}

// openView opens the read model, which follows the log. What the log gained before a
// crash it reads after the scan of what waits: mail goes first, and catching up with
// half a million events took as much of the processor as knowing the messages again.
func (d *Daemon) openView(ctx context.Context) error {
	var err error
	d.view, err = console.OpenView(ctx, console.ViewOptions{Path: d.config.dataFile("view.db"), Log: d.log})
	if err != nil {
		return err
	}
	d.cleanups.add("read model", func(context.Context) error { return d.view.Close() })
	log := console.Log{
		Events: func(ctx context.Context, after uint64) iter.Seq2[mail.LoggedEvent, error] {
			return d.queue.Events(ctx, after)
		},
		Bounds: d.queue.Bounds,
	}
	d.start("following the event log", func(ctx context.Context) {
		if !awaitScan(ctx, d.queue.Scanned, scanPatience) {
			return
		}
		if err := d.view.Follow(ctx, log); err != nil {
			d.log.Error("the read model stopped; stories are out of date until a restart, mail goes on", "error", err)
		}
	})
	d.start("incidents", d.followIncidents)
	return nil
}

// openIntake makes the one function behind both doors.
func (d *Daemon) openIntake(context.Context) error {
	root, err := d.config.rootKey()
	if err != nil {
		return err
	}
	key, err := derive(root, "request hash")
	if err != nil {
		return err
	}
	if domain := d.config.Send.ReturnPathDomain; domain != "" {
		token, err := derive(root, "return path")
		if err != nil {
			return err
		}
		if d.returns, err = bounces.NewReturnPath(token, domain); err != nil {
			return err
		}
	}
	d.intake, err = intake.New(intake.Options{
		Prepare: func(r mail.Request) (mail.Message, []mail.Warning, error) {
			return d.settings.Load().preparer.Prepare(r)
		},
		Suppressed:  d.queue.Suppressed,
		Enqueue:     d.queue.Enqueue,
		Find:        d.find,
		Cancel:      d.cancel,
		Record:      d.record,
		Wait:        d.waitEnded,
		TakesNoMail: d.takesNoMail,
		Delayed:     d.delays.about,
		Why:         func(c mail.Cause) string { return bounces.Explain(c, "en").Fill(bounces.Facts{}).Plain },
		Caller:      d.caller,
		Key:         key,
		Limits:      d.config.Limits.intake(),
		Log:         d.log,
	})
	return err
}

// intake turns rates a minute into bursts and what follows them.
func (l LimitsConfig) intake() intake.Limits {
	rate := func(perMinute int) intake.Limit {
		if perMinute == 0 {
			return intake.Limit{Burst: -1}
		}
		return intake.Limit{Burst: perMinute, Every: time.Minute / time.Duration(perMinute)}
	}
	return intake.Limits{Tenant: rate(l.PerTenant), Recipient: rate(l.PerRecipient)}
}

// readYourWrites bounds how long a reader waits for the read model to reach what
// was acknowledged before it asked.
const readYourWrites = 2 * time.Second

// catchUp lets the read model reach what is known of one message. Where it can't in
// time, the reader gets what is there.
func (d *Daemon) catchUp(ctx context.Context, id mail.ID, ref mail.Ref) {
	ctx, cancel := context.WithTimeout(ctx, readYourWrites)
	defer cancel()
	if d.queue.Said(ctx, id, ref) != nil {
		return
	}
	if last, err := d.queue.LastSeq(ctx); err == nil {
		_ = d.view.CatchUp(ctx, last)
	}
}

// find looks for messages by id, or by reference: first among those that wait,
// which are found at once, then among all that the log tells of.
func (d *Daemon) find(ctx context.Context, id mail.ID, ref mail.Ref) ([]mail.Message, error) {
	if id != "" {
		s, err := d.queue.Status(ctx, id)
		if err == nil {
			return []mail.Message{s.Message}, nil
		}
		if !errors.Is(err, queue.ErrNotFound) {
			return nil, err
		}
	}
	d.catchUp(ctx, id, ref)
	var found []console.Summary
	var err error
	if id != "" {
		var s console.Summary
		if s, err = d.view.Summary(ctx, id); err == nil {
			found = append(found, s)
		}
	} else {
		found, err = d.view.ByRef(ctx, ref)
	}
	if err != nil && !errors.Is(err, console.ErrNotFound) {
		return nil, err
	}
	messages := make([]mail.Message, 0, len(found))
	for _, s := range found {
		messages = append(messages, mail.Message{
			ID: s.ID, Ref: s.Ref, Kind: s.Kind, Tenant: s.Tenant, TenantName: s.TenantName, To: s.To, ToName: s.ToName,
			PersonID: s.PersonID, Locale: s.Locale, Template: s.Template, Source: s.Source,
			QueuedAt: s.QueuedAt, ExpiresAt: s.ExpiresAt, ResendOf: s.ResendOf,
		})
	}
	return messages, nil
}

// cancel ends an open message; one that has ended is a conflict.
func (d *Daemon) cancel(ctx context.Context, id mail.ID, by, reason string) error {
	err := d.queue.Cancel(ctx, id, by, reason)
	if errors.Is(err, queue.ErrNotFound) {
		return &mail.Problem{Type: mail.ProblemAlreadyEnded, Title: "The message has ended", Status: 409, Message: id,
			Detail: "It was handed over, refused, or ended otherwise before: there is nothing to cancel."}
	}
	return err
}

// waitEnded blocks until a message has ended, or ctx, and returns its state then.
func (d *Daemon) waitEnded(ctx context.Context, id mail.ID) mail.State {
	state, _ := d.view.Wait(ctx, id, func(s mail.State) bool { return !s.Open() })
	return state
}
