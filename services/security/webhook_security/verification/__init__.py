"""How a sender proves who it is: schemes as data, carried out on any bytes; and handshakes."""
