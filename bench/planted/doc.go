// Package planted shows that the tests see what they are there to see: it plants bugs, one at a time, and wants each caught.
//
// Each file in testdata is one bug: a sentence that says what it is, the tests that must catch it, the cheapest first, and the
// exact text of the source that it replaces. The source itself never has a bug, not even behind a build tag: the text is replaced in
// what the compiler reads (go test -overlay). A bug counts as caught when a test that passes without it fails by an
// assertion; a source that does not compile, a panic or a timeout shows nothing. When the text is no longer found in the source,
// or more than once, that is a failure as well: the bug has to be planted anew.
//
// Everything here is a test behind the build tag planted. It needs nothing but Go and takes some minutes.
//
//	go test -tags=planted -count=1 -v -timeout 15m ./bench/planted
package planted
