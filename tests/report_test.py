#!/usr/bin/env python3
"""HTML reports in a real browser: no console errors, every plot has data, nothing wider than the screen."""
import json
import os
import re
import shutil
import subprocess
import tempfile
import unittest

HETERO = os.environ['HETERO_BINARY']
BROWSER = os.environ.get('HETERO_BROWSER') or next(
    filter(None, map(shutil.which, ['chromium', 'chromium-browser', 'google-chrome'])), None)

# Added to a copy of the page: what it looks like to the reader, as JSON in an attribute.
PROBE = '''<script>addEventListener('load', () => {
  const shown = e => e.getBoundingClientRect().width > 0;
  document.documentElement.dataset.probe = JSON.stringify({
    width: innerWidth, needed: document.documentElement.scrollWidth,
    plots: [...document.querySelectorAll('figure.plot')].map(f => ({
      title: f.querySelector('h3').textContent,
      drawings: [...f.querySelectorAll('.wide svg, .narrow svg')].filter(shown).length,
      marks: [...f.querySelectorAll('.wide .m, .narrow .m')].filter(shown).length,
      smallest: Math.min(...[...f.querySelectorAll('.wide text, .narrow text')].filter(shown)
        .map(t => t.getBoundingClientRect().height)),
    })),
    loaded: performance.getEntriesByType('resource').map(r => r.name).filter(n => !n.startsWith('data:')),
  });
})</script>'''


@unittest.skipUnless(BROWSER, 'no chromium or chrome on the PATH (HETERO_BROWSER names another)')
class Reports(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def probe(self, page, width):
        with open(page, encoding='utf-8') as f:
            html = f.read()
        self.assertNotIn('<script', html)
        copy = page + f'.{width}.html'
        with open(copy, 'w', encoding='utf-8') as f:
            f.write(html.replace('</body>', PROBE + '</body>'))
        # Headless windows are at least 500 wide, so that a phone is played by a frame inside of one.
        outer = page + f'.{width}.outer.html'
        with open(outer, 'w', encoding='utf-8') as f:
            f.write(f'''<iframe src="{os.path.basename(copy)}" style="width:{width}px;height:900px;border:0"></iframe>
<script>addEventListener('load', () => setTimeout(() => document.documentElement.dataset.probe =
  document.querySelector('iframe').contentDocument.documentElement.dataset.probe, 100))</script>''')
        result = subprocess.run(
            [BROWSER, '--headless', '--no-sandbox', '--disable-gpu', '--enable-logging=stderr', '--allow-file-access-from-files',
             '--virtual-time-budget=5000', '--window-size=1400,1000', f'--user-data-dir={self.folder.name}/profile',
             '--dump-dom', 'file://' + outer], capture_output=True, timeout=120, text=True)
        self.assertEqual([line for line in result.stderr.splitlines() if 'CONSOLE' in line], [])
        found = re.search(r'data-probe="([^"]*)"', result.stdout)
        self.assertTrue(found, result.stderr[-2000:])
        return json.loads(found.group(1).replace('&quot;', '"').replace('&amp;', '&'))

    def check(self, *args, plots, option='--html'):
        page = os.path.join(self.folder.name, f'{len(os.listdir(self.folder.name))}.html')
        result = subprocess.run([HETERO, *args, option, page], capture_output=True, timeout=300)
        self.assertEqual(result.returncode, 0, result.stderr.decode())
        for width in (390, 1280):
            seen = self.probe(page, width)
            self.assertEqual(seen['width'], width)
            self.assertLessEqual(seen['needed'], width)
            self.assertEqual(seen['loaded'], [])
            self.assertGreaterEqual(len(seen['plots']), plots)
            for plot in seen['plots']:
                self.assertEqual(plot['drawings'], 1, plot)
                self.assertGreater(plot['marks'], 0, plot)
                self.assertGreaterEqual(plot['smallest'], 9, plot)

    def test_one_simulation(self):
        self.check('simulate', '--shape', 'smollm2-135m', '--prompt', '64', '--decode', '4', plots=2)

    def test_a_sweep(self):
        self.check('simulate', '--shape', 'smollm2-135m', '--prompt', '32:128:32', '--decode', '2', plots=2)

    def test_the_papers_figures(self):
        self.check('simulate', '--paper', plots=10)

    def test_what_a_simulated_chip_can_do(self):
        self.check('characterize', '--soc', 'snapdragon-8-gen-3', plots=8, option='-o')

    def test_what_this_machine_can_do(self):
        # In a second: some of its plots have few points, none has none.
        self.check('characterize', '--processors', 'cpu', '--time', '1', plots=4, option='-o')


if __name__ == '__main__':
    unittest.main()
