"""Image sets, and `images`, which opens one untrusted image file for all of them."""
