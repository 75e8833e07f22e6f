package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

func exitCode(err error) int {
	var exit *exitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.code
	}
	return -1
}

func TestExitCodesOfARun(t *testing.T) {
	for _, c := range []struct {
		name string
		left int
		err  error
		want int
	}{
		{"drained", 0, nil, 0},
		{"mail left", 3, nil, 75},
		{"failed", 0, errors.New("journal: sync: no space"), 1},
		{"failed with mail left", 3, errors.New("journal: sync: no space"), 1},
	} {
		run := func(context.Context) (int, error) { return c.left, c.err }
		err := supervise(t.Context(), zap.NewNop(), nil, func(int) { t.Error("cut") }, run)
		if got := exitCode(err); got != c.want {
			t.Errorf("%s: got %d, want %d", c.name, got, c.want)
		}
	}
}

func TestTheFirstSignalDrainsTheSecondCuts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sigs := make(chan os.Signal, 2)
		cut := make(chan int, 1)
		draining, drained := make(chan bool), make(chan bool)
		run := func(ctx context.Context) (int, error) {
			<-ctx.Done()
			close(draining)
			<-drained
			return 0, nil
		}
		ended := make(chan error, 1)
		go func() { ended <- supervise(t.Context(), zap.NewNop(), sigs, func(code int) { cut <- code }, run) }()

		synctest.Wait()
		select {
		case <-draining:
			t.Fatal("it drains without a signal")
		default:
		}
		sigs <- syscall.SIGTERM
		<-draining
		synctest.Wait()
		if len(cut) != 0 {
			t.Fatal("the first signal cuts")
		}
		sigs <- syscall.SIGINT
		if code := <-cut; code != 1 {
			t.Errorf("cut with %d, want 1", code)
		}
		close(drained)
		if err := <-ended; err != nil {
			t.Errorf("got %v", err)
		}
	})
}

func TestTheLogIsOneObjectALine(t *testing.T) {
	var b bytes.Buffer
	log, err := newLogger("info", &b)
	if err != nil {
		t.Fatal(err)
	}
	log.Debug("unseen")
	for range 1000 { // none of them is sampled away
		log.Named("smtpd").Info("accepted", zap.String("from", "a\nb"), zap.Duration("took", 1500*time.Millisecond))
	}
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	if len(lines) != 1000 {
		t.Fatalf("got %d lines, want 1000", len(lines))
	}
	var line struct {
		Time, Level, Logger, Msg, From string
		Took                           float64
	}
	if err := json.Unmarshal([]byte(lines[0]), &line); err != nil {
		t.Fatal(err)
	}
	if _, err := time.Parse("2006-01-02T15:04:05.000Z0700", line.Time); err != nil {
		t.Error(err)
	}
	if line.Level != "info" || line.Logger != "smtpd" || line.Msg != "accepted" || line.From != "a\nb" || line.Took != 1.5 {
		t.Errorf("got %+v", line)
	}
}

func TestEveryLevelOfTheConfigurationIsALevelOfTheLog(t *testing.T) {
	for level, want := range map[string]zapcore.Level{
		"debug": zap.DebugLevel, "info": zap.InfoLevel, "warn": zap.WarnLevel, "error": zap.ErrorLevel,
	} {
		log, err := newLogger(level, &bytes.Buffer{})
		if err != nil || log.Level() != want {
			t.Errorf("%s: got %v, %v", level, log.Level(), err)
		}
	}
	if _, err := newLogger("loud", &bytes.Buffer{}); err == nil {
		t.Error("a level that is none was taken")
	}
}

func TestTheMemoryLimitIsNineTenthsOfTheCgroups(t *testing.T) {
	for _, c := range []struct {
		environ []string
		cgroup  int64
		want    int64
	}{
		{nil, 1000, 900},
		{[]string{"GOMEMLIMIT="}, 1000, 900},
		{[]string{"A=b", "GOMEMLIMIT=100MiB"}, 1000, 0},
		{[]string{"GOMEMLIMIT=off"}, 1000, 0},
		{nil, 0, 0},
	} {
		if got := memoryLimit(c.environ, c.cgroup); got != c.want {
			t.Errorf("%q with %d: got %d, want %d", c.environ, c.cgroup, got, c.want)
		}
	}
}
