"""Networks in torch; serving never imports them."""
