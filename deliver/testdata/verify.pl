# Verifies the RSA signature of the files with Mail::DKIM, and says "pass" or its
# result for each. Usage: verify.pl DIRECTORY-OF-RECORDS FILE...
use strict;
use warnings;
use Mail::DKIM::Verifier;
use Mail::DKIM::PublicKey;

my $directory = shift @ARGV;
{
    no warnings 'redefine';
    *Mail::DKIM::PublicKey::fetch = sub {
        my ($class, %prms) = @_;
        my $path = "$directory/$prms{Selector}._domainkey.$prms{Domain}";
        open my $in, '<', $path or return;
        local $/;
        return Mail::DKIM::PublicKey->parse(<$in>);
    };
    *Mail::DKIM::PublicKey::fetch_async = sub {
        my ($class, %prms) = @_;
        my $key = $class->fetch(%prms);
        return sub { $prms{Callbacks}{Success} ? $prms{Callbacks}{Success}->($key) : $key };
    };
}

for my $path (@ARGV) {
    open my $in, '<:raw', $path or die "$path: $!";
    my $verifier = Mail::DKIM::Verifier->new;
    while (<$in>) { $verifier->PRINT($_) }
    $verifier->CLOSE;
    for my $signature ($verifier->signatures) {
        next unless $signature->algorithm eq 'rsa-sha256';
        (my $name = $path) =~ s{.*/}{};
        print "$name ", $signature->result_detail, ' ', $signature->result, "\n";
    }
}
