package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
)

// cleanups stop what was started, last first, each by its name.
type cleanups struct {
	log   *slog.Logger
	stack []cleanup
}

type cleanup struct {
	name string
	stop func(context.Context) error
}

// add registers how to stop what has just been started.
func (c *cleanups) add(name string, stop func(context.Context) error) {
	c.stack = append(c.stack, cleanup{name, stop})
}

// run stops everything; ctx bounds how long each may take its time. What fails is
// named, and does not keep the others running.
func (c *cleanups) run(ctx context.Context) error {
	var errs []error
	for i := len(c.stack) - 1; i >= 0; i-- {
		s := c.stack[i]
		c.log.Debug("stopping", "part", s.name)
		if err := s.stop(ctx); err != nil {
			errs = append(errs, fmt.Errorf("stopping %s: %w", s.name, err))
		}
	}
	c.stack = nil
	return errors.Join(errs...)
}
