package smtpd

import (
	"net"
	"sync"
)

// door is a listener under go-smtp's accept loop. At Config.MaxConnections it stops accepting, and
// the kernel's backlog waits: an application that hears 421 instead would lose its mail.
type door struct {
	net.Listener
	server  *Server
	once    sync.Once
	shutErr error
}

// Accept waits until the server has room, then for a connection, and wraps it. A listener that waits for
// a connection holds no slot, or an idle listener would take one from a busy one; so a last connection
// that two listeners took at once waits here, unserved, for its slot.
func (d *door) Accept() (net.Conn, error) {
	s := d.server
	if !s.takeSlot() {
		return nil, net.ErrClosed
	}
	s.giveSlot()
	conn, err := d.Listener.Accept()
	if err != nil {
		return nil, err
	}
	if !s.takeSlot() {
		return nil, refuse(conn)
	}
	g := newGuard(conn, s)
	if !s.register(g) {
		s.giveSlot()
		return nil, refuse(conn)
	}
	return g, nil
}

// refuse drops a connection that came while the door was closing; nobody reads the cause.
func refuse(conn net.Conn) error {
	if err := conn.Close(); err != nil {
		return err
	}
	return net.ErrClosed
}

// Close is called by go-smtp, which wants the error.
func (d *door) Close() error {
	d.shut()
	return d.shutErr
}

func (d *door) shut() {
	d.once.Do(func() { d.shutErr = d.Listener.Close() })
}

// takeSlot waits for room for one connection; false means that the server drains.
func (s *Server) takeSlot() bool {
	select {
	case s.slots <- struct{}{}:
		return true
	case <-s.drained:
		return false
	}
}

func (s *Server) giveSlot() { <-s.slots }

func (s *Server) register(g *guard) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining {
		return false
	}
	s.guards[g] = struct{}{}
	s.open.Add(1)
	s.stats.connected()
	return true
}

// unregister is called once by each guard that was registered, when it has closed.
func (s *Server) unregister(g *guard) {
	s.mu.Lock()
	delete(s.guards, g)
	s.mu.Unlock()
	s.giveSlot()
	s.open.Done()
}
