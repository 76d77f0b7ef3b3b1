//go:build interop

package interop

import (
	"testing"
)

func TestInterop(t *testing.T) {
	s := startSite(t)
	t.Run("road", s.testRoad)
}

func (s *site) testRoad(t *testing.T) {
	text := []byte("From: <a@app.example>\r\nTo: <road@box.example>\r\nSubject: the thinnest road\r\n\r\nHello.\r\n.\r\n..\r\nBye.\r\n")
	s.swaks(t, outgoing{from: "a@app.example", to: []string{"road@box.example"}, text: text})
	got, _ := s.box.one(t, "road@box.example")
	sameBytes(t, got, text)
}
