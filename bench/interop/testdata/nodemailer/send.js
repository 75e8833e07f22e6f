// Sends one message and exits with 0 when the server has taken it: send.js HOST PORT FROM TO SUBJECT < TEXT
'use strict';

const fs = require('node:fs');
const nodemailer = require('nodemailer');

const [host, port, from, to, subject] = process.argv.slice(2);
const transport = nodemailer.createTransport({
  host,
  port: Number(port),
  secure: false,
  ignoreTLS: true,
  connectionTimeout: 10_000,
  socketTimeout: 10_000,
});
transport
  .sendMail({ from, to, subject, text: fs.readFileSync(0, 'utf8') })
  .then((info) => console.log(info.response))
  .catch((err) => {
    console.error(err);
    process.exitCode = 1;
  });
