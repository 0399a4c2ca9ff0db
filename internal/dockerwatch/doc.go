// Package dockerwatch follows Docker's event stream to learn what the plugin
// protocol does not tell: the names of networks, the id and the name of the
// container behind each endpoint, and which networks Docker still knows.
//
// Most of it is for people, who read it in listings and on the rows of Open
// vSwitch. Of the containers that may start next it tells on which networks they
// are, so that published ports can be refused where nothing can publish them.
// Nothing of it is needed to attach a container. So this package waits
// quietly while Docker's socket is absent or its API does not answer, which is
// the case for as long as an engine boots and starts containers, and it is
// never called from a request that Docker waits for: the engine holds locks
// then, and asking it would make both wait for each other.
//
// How nothing is missed: first the event stream is opened, then everything is
// listed, and from then on an event only says which network to look at again.
// Events are never trusted for more, so one that comes twice, late or out of
// order does no harm. When the stream breaks, it all starts again.
//
// It speaks plain HTTP to the engine. Docker's own client library would bring
// OpenTelemetry and several megabytes of resident memory into the plugin, for
// the few GET requests that are made here.
package dockerwatch
