"""Random changes of samples, apart into what is drawn and what is done with it."""
