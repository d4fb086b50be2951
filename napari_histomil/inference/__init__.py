"""Run models over slides: one engine for the window, the command line and the tests."""
