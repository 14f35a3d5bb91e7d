"""What a test of a flow needs: a runner in memory, and real servers for as long as the test."""
