# shellcheck shell=bash
#
# A certificate authority for one test run; sourced. Needs openssl.

# make_authority DIRECTORY: ca.pem and ca.key.
make_authority() {
    openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj '/CN=Test authority' \
        -keyout "$1/ca.key" -out "$1/ca.pem" 2>/dev/null
}

# make_certificate DIRECTORY NAME IP...: NAME.pem, for these addresses, NAME.key, and both in NAME.both.pem.
make_certificate() {
    local directory=$1 name=$2 addresses
    shift 2
    printf -v addresses ',IP:%s' "$@"
    openssl req -newkey rsa:2048 -nodes -subj "/CN=$name" -addext "subjectAltName=${addresses#,}" \
        -keyout "$directory/$name.key" -out "$directory/$name.request" 2>/dev/null
    openssl x509 -req -in "$directory/$name.request" -CA "$directory/ca.pem" -CAkey "$directory/ca.key" \
        -days 2 -copy_extensions copyall -out "$directory/$name.pem" 2>/dev/null
    cat "$directory/$name.key" "$directory/$name.pem" >"$directory/$name.both.pem"
}
