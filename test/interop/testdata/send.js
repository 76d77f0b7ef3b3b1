// Hands in a message with nodemailer. Its argument is JSON: host, port, from, to, file.
const fs = require('fs');
const nodemailer = require('nodemailer');

const o = JSON.parse(process.argv[2]);
const transport = nodemailer.createTransport({
  host: o.host, port: o.port, name: 'nodemailer.example', ignoreTLS: true,
});
transport.sendMail({ envelope: { from: o.from, to: o.to }, raw: fs.readFileSync(o.file) }, (err) => {
  if (err) {
    console.error(err);
    process.exit(1);
  }
  transport.close();
});
