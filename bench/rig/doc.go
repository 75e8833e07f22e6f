// Package rig starts what tests of whole processes are made of: the real binary, a Postfix beside it, the scripted relay on a port.
//
// Everything ends with the test that started it, also when that test crashes. It needs Linux; Postfix needs root as well.
package rig
