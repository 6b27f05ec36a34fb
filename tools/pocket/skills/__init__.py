"""One file per skill: `make(draw)` gives an item, `right(item, response)` checks an answer to it."""
