//! What every HTTP-based front shares: bodies, origins, credentials, problems, connections that give their socket back
