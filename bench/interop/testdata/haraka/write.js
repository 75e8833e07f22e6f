// Takes every recipient, and writes each message to a directory, once for each of them.
const fs = require("node:fs");
const path = require("node:path");

const dir = process.env.MAIL_DIR;

exports.hook_rcpt = (next) => next(OK);

exports.hook_queue = (next, connection) => {
  const { uuid, rcpt_to, message_stream } = connection.transaction;
  message_stream.get_data((content) => {
    rcpt_to.forEach((to, i) => {
      const file = path.join(dir, `${uuid}-${i}`);
      fs.writeFileSync(file, Buffer.concat([Buffer.from(to.address + "\n"), content]));
      fs.renameSync(file, file + ".eml");
    });
    next(OK);
  });
};
