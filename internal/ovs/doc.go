// Package ovs is the fabric of plain Open vSwitch: it makes bridges and ports
// of networks and endpoints.
//
// It owns the rows that carry this driver's mark (external_ids:owner), the veth
// pairs behind them, and the knowledge of what ovs-vswitchd makes of rows. A
// port counts as made when ovs-vswitchd has taken the change (cur_cfg), given
// the port a number, reported no error, and the device is there.
//
// It refuses to touch a row or a device without the mark, to set up Open
// vSwitch itself, and to run a program.
package ovs
