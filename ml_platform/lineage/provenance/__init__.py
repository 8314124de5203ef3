"""Records of answers: a local log that makes each durable before the answer leaves, and the store it is shipped to."""
