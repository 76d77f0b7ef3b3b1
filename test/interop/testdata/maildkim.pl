# Verifies the message on standard input with Mail::DKIM, asking the name server ARGV[0]:ARGV[1]. Prints a line for each
# signature: selector, algorithm and result. "algorithms" as the only argument tells which algorithms it knows.
use strict;
use warnings;
use Mail::DKIM::Verifier;
use Net::DNS;

if ($ARGV[0] eq 'algorithms') {
	print "rsa-sha256\n";
	print "ed25519-sha256\n" if eval { require Mail::DKIM::Algorithm::ed25519_sha256; 1 };
	exit;
}
my $resolver = Net::DNS::Resolver->new(nameservers => [$ARGV[0]], port => $ARGV[1], recurse => 1, udp_timeout => 10);
Mail::DKIM::DNS::resolver($resolver);
my $dkim = Mail::DKIM::Verifier->new;
binmode STDIN;
local $/;
$dkim->PRINT(<STDIN>);
$dkim->CLOSE;
for my $s ($dkim->signatures) {
	print join(' ', $s->selector, $s->algorithm, $s->result), "\n";
}
