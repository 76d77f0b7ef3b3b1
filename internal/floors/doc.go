// Package floors holds the rules of the house as tests. It has no code of its own.
//
// The rooms stand on floors (ARCHITECTURE.md, Rooms): a package imports lower floors only, and on its own floor only
// what the table in table_test.go allows. One library has one owner. There is no room without a name of the trade, no
// effect at initialisation, no package variable that changes, no package without documentation, and no RFC cited that
// docs/rfc.md does not list.
//
// A failure says why the rule exists. A new package gets its place in the table, a new library its owner and its line
// in ARCHITECTURE.md, in the change that brings it.
package floors
