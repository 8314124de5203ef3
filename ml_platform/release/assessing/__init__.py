"""One metric of the monitor policy: from users counted to a reading with its verdict; pure."""
